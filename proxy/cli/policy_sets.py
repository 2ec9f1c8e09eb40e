"""The policies of a revision, found among those at hand: the folder as it is, then the history of what was in force.

Owns the looking; used by the verbs that tell of the past.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from proxy.core.config.settings import Settings
from proxy.core.policy.load import parse_policies
from proxy.core.policy.policy_set import PolicySet
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.sources.files import read_policies
from proxy.sources.policy_history import PolicyHistory


def policies_by_revision(settings: Settings, *more: PolicySet) -> Callable[[str], PolicySet | None]:
    """Return what finds the policies of a revision: among ``more``, in the config's folder, in the history."""
    history = PolicyHistory(settings.history_folder)
    sets = {policies.revision: policies for policies in more}
    current = parse_policies(read_policies(settings.policies).files, settings, KNOWN_KINDS).policies
    if current is not None:
        sets.setdefault(current.revision, current)

    @lru_cache(maxsize=100)
    def find(revision: str) -> PolicySet | None:
        if revision in sets:
            return sets[revision]
        kept = history.find(revision)
        found = None if kept is None else parse_policies(kept.files, settings, KNOWN_KINDS).policies
        return found if found is not None and found.revision == revision else None

    return find
