"""All cases of a policy folder against one snapshot: what held, what did not, which rules nobody touched.

Owns nothing. Called by ``readygate test`` and before a snapshot is put in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from proxy.core.audit.payload import finish
from proxy.core.audit.row import row_of
from proxy.core.budget.prices import PriceTable
from proxy.core.config.problem import CASE_FAILED, Problem, Severity, error, has_errors, lint
from proxy.core.config.settings import PolicyCases, Settings
from proxy.core.policy.case_checks import check_cases
from proxy.core.policy.cases import Case, parse_cases
from proxy.core.policy.coverage import Rule, touches
from proxy.core.policy.expectations import Happened, differences
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.audit_ports import Spool
from proxy.flow.catalog import Snapshot
from proxy.flow.rehearsal import Rehearsal, Rehearsed

_SKIPPED = "skipped:"
_ACCESS = ("access:", "would_refuse:access:", "clamped:")


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case went; no differences: it held."""

    case: Case
    differences: tuple[str, ...]
    happened: Happened


@dataclass(slots=True)
class SelfTest:
    """The results in the order of the cases, and the rules that no case touched."""

    results: list[CaseResult] = field(default_factory=list)
    uncovered: list[Rule] = field(default_factory=list)

    @property
    def failed(self) -> list[CaseResult]:
        """The cases that did not hold."""
        return [result for result in self.results if result.differences]


def run_cases(
    rehearsal: Rehearsal,
    cases: Iterable[Case],
    rules: Sequence[Rule] = (),
    after_each: Callable[[CaseResult], None] | None = None,
) -> SelfTest:
    """Play every case. Call it outside of a running event loop; ``after_each`` hears of progress."""
    outcome = SelfTest()
    left = list(rules)
    for case in cases:
        happened = happened_in(rehearsal.play(case))
        result = CaseResult(case, tuple(differences(case.expected, happened)), happened)
        outcome.results.append(result)
        left = [rule for rule in left if not touches(rule, case, happened)]
        if after_each is not None:
            after_each(result)
    outcome.uncovered = left
    return outcome


def happened_in(played: Rehearsed) -> Happened:
    """Put what happened into the words of a case."""
    facts = played.facts
    _, columns = finish(facts)
    row = row_of(facts.id, columns, ("", 0, 0))._asdict() if columns is not None else {}
    return Happened(
        status=played.status,
        code=played.error_code,
        result=facts.status.value,
        policy=facts.policy,
        route=facts.route,
        targets=tuple(sent.deployment for sent in played.sent),
        skipped=tuple(note.removeprefix(_SKIPPED) for note in facts.notes if note.startswith(_SKIPPED)),
        sent="\n".join(sent.body.decode("utf-8", "replace") for sent in played.sent),
        answer=played.body.decode("utf-8", "replace"),
        redactions={kind.lower(): count for kind, count in facts.sanitized.items()},
        findings={kind.lower(): count for kind, count in facts.findings.items()},
        answer_findings={kind.lower(): count for kind, count in facts.response_findings.items()},
        headers=played.headers,
        row=row,
        access=tuple(note.rpartition(":")[2] for note in facts.notes if note.startswith(_ACCESS)),
    )


def prove(
    settings: Settings,
    snapshot: Snapshot,
    case_files: Sequence[tuple[str, str]],
    spool: Callable[[], Spool],
    prices: PriceTable | None = None,
) -> list[Problem]:
    """Play the cases beside a candidate's policies; return what keeps it from being put in force, or is worth a warning.

    Call it in a worker thread: a case runs an event loop of its own.
    """
    if not case_files or settings.policy_cases is PolicyCases.OFF:
        return []
    cases, problems = parse_cases(case_files)
    if problems:
        return list(problems)
    tell = error if settings.policy_cases is PolicyCases.REFUSE else lint
    named = check_cases(cases, snapshot.policies, settings, KNOWN_KINDS)
    if settings.policy_cases is not PolicyCases.REFUSE:
        named = [replace(problem, severity=Severity.LINT) for problem in named]
    if has_errors(named):
        return named
    failed = run_cases(Rehearsal(settings, snapshot, spool, prices), cases).failed
    return named + [
        tell(result.case.mark, CASE_FAILED, f"{result.case.name}: {result.differences[0]}", "run `readygate test`")
        for result in failed
    ]
