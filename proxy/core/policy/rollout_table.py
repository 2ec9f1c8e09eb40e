"""The key ``rollout``: how a new revision comes into force, and what is wrong with it across the files of one.

Owns its rows, its short form (``rollout: 10%``) and the findings about what cannot act. A rollout belongs to the whole
revision: every file that has the key says the same, files without it follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from proxy.core.config.kinds import Choice, Number, Percent, duration
from proxy.core.config.problem import Mark, Problem, error, lint
from proxy.core.config.schema import Items, Key, ListOf, Problems, Section, Table
from proxy.core.config.settings import Settings
from proxy.core.config.yaml_text import Bad, Entry, Map, Node, Scalar
from proxy.core.config.yaml_text import Sequence as YamlList
from proxy.core.policy.rollout import AfterWatch, RolloutBy, RolloutPlan

BUSY_PER_S: Final = 500.0
"""Exchanges a second that a sidecar is not expected to carry: a watch that needs more never sees its sample."""

_SHARE = Percent(0.1, 99.0, "0 % tries nothing, and 100 % is no canary: leave `rollout` out")


@dataclass(frozen=True, eq=False)
class _Shares(ListOf):
    """One share, or one for each step."""

    what = "a percentage such as 10%, or a list of rising ones"

    def read(self, node: Node, path: str, problems: Problems) -> Items | Bad:
        """Return the shares."""
        if isinstance(node, YamlList):
            return super().read(node, path, problems)
        value = self.item.read(node, path, problems)
        return value if isinstance(value, Bad) else Items([value], [node.mark])

    def json_schema(self) -> dict[str, Any]:
        """Return one share or an array of them."""
        return {"anyOf": [self.item.json_schema(), super().json_schema()]}


_SHARES = _Shares(_SHARE, 1, 10)

_TAKE_BACK = Table(
    "take_back",
    "How much worse than the revision before it may be.",
    (
        Key("errors", Percent(0.0, 99.0), "Percentage points by which its rate of errors may be higher.", "5%", "2%"),
        Key("refusals", Percent(0.0, 99.0), "The same of refusals by policy.", "5%", "10%"),
    ),
)


@dataclass(frozen=True, eq=False)
class _Rollout(Table):
    """A map, or its shares alone."""

    def read(self, node: Node, path: str, problems: Problems) -> Section | Bad:
        """Return the section."""
        if isinstance(node, Scalar | YamlList):
            node = Map(node.mark, {"share": Entry(node.mark, node)})
        return super().read(node, path, problems)

    def json_schema(self) -> dict[str, Any]:
        """Return the closed object, or shares."""
        return {"anyOf": [super().json_schema(), _SHARES.json_schema()]}


_ROLLOUT = _Rollout(
    "rollout",
    "How a new revision comes into force: for a share of the exchanges first. A share alone (or a list of them) is the short form.",
    (
        Key(
            "share",
            _SHARES,
            "How many of the exchanges use it; several: one step after the other.",
            is_required=True,
            example="[5%, 25%, 50%]",
        ),
        Key(
            "by",
            Choice(tuple(RolloutBy)),
            "What keeps to one revision. A conversation that has no name is known by its beginning.",
            "conversation",
            "app",
        ),
        Key("watch", duration("1s", "30d"), "How long each step is watched.", "15m", "1h"),
        Key(
            "then",
            Choice(tuple(AfterWatch)),
            "What follows the last step: it is in force for everybody, or waits for `readygate policy promote`.",
            "promote",
            "wait",
        ),
        Key(
            "min_exchanges",
            Number(10, 1_000_000),
            "Exchanges that have to use it before it is judged, in each step.",
            "50",
            "500",
        ),
        Key("take_back", _TAKE_BACK, "When it is taken back.", "{}", "{errors: 2%, refusals: 10%}"),
    ),
    homes=dict.fromkeys(("errors", "refusals"), "rollout.take_back"),
)

ROLLOUT_KEY: Final = Key(
    "rollout",
    _ROLLOUT,
    "How a new revision comes into force: for a share of the exchanges first. Left out: for all at once.",
    None,
    "10%",
)


def compile_rollout(section: Section | None) -> RolloutPlan | None:
    """Return the plan of a section without errors; None where the key is not given."""
    if section is None:
        return None
    limits: Section = section["take_back"]
    return RolloutPlan(
        tuple(section["share"].values),
        RolloutBy(section["by"]),
        section["watch"],
        AfterWatch(section["then"]),
        section["min_exchanges"],
        limits["errors"],
        limits["refusals"],
    )


def check_rollout(top: Section, settings: Settings) -> list[Problem]:
    """Return what cannot act in the rollout of one file."""
    problems: list[Problem] = []
    plan = _plan_of(top)
    if plan is not None:
        _check_order(top["rollout"], problems)
        _check_sample(top["rollout"], plan, problems)
        _check_apps(top["rollout"], plan, settings, problems)
    return problems


def agree_on_rollout(tops: Sequence[tuple[str, Section]]) -> tuple[RolloutPlan | None, list[Problem]]:
    """Return the plan of a revision, and a problem for each file that says another."""
    problems: list[Problem] = []
    agreed: tuple[RolloutPlan, Mark] | None = None
    for _, top in tops:
        plan = _plan_of(top)
        if plan is None:
            continue
        if agreed is None:
            agreed = plan, top.at("rollout")
        elif plan != agreed[0]:
            text = f"a revision has one rollout, and {agreed[1].file}:{agreed[1].line} says another"
            problems.append(error(top.at("rollout"), "rollout-differs", text, "say it in one file; the others follow"))
    return (None if agreed is None else agreed[0]), problems


def _plan_of(top: Section) -> RolloutPlan | None:
    """Return what a file says, where all of it is good."""
    section: Section | None = top["rollout"] if top.is_good("rollout") else None
    if section is None or not section.is_good(*(key.name for key in _ROLLOUT.keys)):
        return None
    return compile_rollout(section) if section["take_back"].is_good("errors", "refusals") else None


def _check_order(section: Section, problems: list[Problem]) -> None:
    steps = list(section["share"])
    for (before, _), (share, mark) in pairwise(steps):
        if share <= before:
            text = f"a step of {share:.1%} after one of {before:.1%} would take exchanges back from the new revision"
            problems.append(error(mark, "rollout-order", text, "let every share be greater than the one before"))


def _check_sample(section: Section, plan: RolloutPlan, problems: list[Problem]) -> None:
    """Say when a watch is over before its sample can be there."""
    wanted_per_s = plan.min_exchanges / (plan.shares[0] * plan.watch_s)
    if wanted_per_s > BUSY_PER_S:
        text = (
            f"the watch of {plan.watch_s:g}s is over before {plan.min_exchanges} exchanges have used a share of "
            f"{plan.shares[0]:.1%}, unless there are {wanted_per_s:,.0f} a second: it will wait for them"
        )
        at = section.at("watch") if section.is_written("watch") else section.at("share")
        problems.append(lint(at, "rollout-sample", text, "lengthen `watch`, or lower `min_exchanges`"))


def _check_apps(section: Section, plan: RolloutPlan, settings: Settings, problems: list[Problem]) -> None:
    """Say when a share of apps is a share of one."""
    apps = {key.app for key in settings.callers}
    is_all = bool(apps) and settings.callers_file is None and settings.jwt is None
    if plan.by is RolloutBy.APP and is_all and len(apps) * plan.shares[0] < 1.0:
        text = f"a share of {plan.shares[0]:.1%} of {len(apps)} app(s) is most likely none of them, else all of one"
        problems.append(lint(section.at("by"), "rollout-coarse", text, "say `by: conversation`"))
