"""``GET /v1/models``, answered from the routes an app may use.

Pure; owns the shape of the listing.
"""

from __future__ import annotations

import orjson

from proxy.core.policy.applies import Subject
from proxy.flow.catalog import Snapshot


def list_models(snapshot: Snapshot, subject: Subject) -> bytes | None:
    """Return the model list of a caller, or None when only its provider can tell, or policy does not let it ask.

    Names that routes spell out are listed. When every route takes models by wildcard there is nothing to
    list, and the provider's own answer is the honest one.
    """
    policies = snapshot.policies
    known = policies.models_for(subject) if snapshot.asks_more else policies.models(subject.app)
    if known.is_hidden or (not known.names and known.has_wildcard):
        return None
    rows = [{"id": name, "object": "model", "created": 0, "owned_by": "readygate"} for name in known.names]
    return orjson.dumps({"object": "list", "data": rows})
