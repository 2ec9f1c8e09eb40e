"""A canary at a running sidecar: who meets it, what takes it back, what puts it in force, and what outlives a restart."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import policy as policy_verb
from proxy.simulator import Speech
from tests.support.redis import RedisServer
from tests.support.simulator import Simulator, refused_origin
from tests.support.wire import (
    Message,
    Sidecar,
    ask,
    caller,
    chat,
    eventually,
    request,
    serving,
    sidecar_for,
    threaded_simulator,
)

pytestmark = pytest.mark.integration

MAIL = "write to ana.souza@example.com"
PROOF = {"x-readygate-admin": "1", "content-type": "application/json"}
QUICK = "{share: 40%, watch: 1s, min_exchanges: 10}"
SLOW = "{share: 40%, watch: 1h, min_exchanges: 10}"


def policy(
    action: str = "observe", rollout: str = "", model: str = "old", provider: str = "one", more: str = ""
) -> str:
    """Return a policy whose revision shows in what the provider is asked for."""
    return f"""version: 1
policy: default
redaction: {{request: {{default: {action}}}}}
routes: [{{name: any, match: {{models: ["*"]}}, chain: [{{provider: {provider}, model: {model}}}], retries: none}}]
{more}
{f"rollout: {rollout}" if rollout else ""}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as running:
        yield running


def config(provider: Simulator) -> str:
    return f'providers: {{one: {{base_url: "{provider.base_url}"}}, away: {{base_url: "{refused_origin()}/v1"}}}}\n'


@contextmanager
def sidecar_on(folder: Path, provider: Simulator, text: str = "") -> Iterator[Sidecar]:
    folder.mkdir(exist_ok=True)
    with sidecar_for(folder, config(provider), text or policy()) as running:
        yield running


def write(sidecar: Sidecar, text: str) -> None:
    """Change the policy file in one step."""
    path = sidecar.folder / "policies" / "default.yaml"
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.rename(path)


def rollout(sidecar: Sidecar) -> dict[str, Any]:
    document: dict[str, Any] = sidecar.admin("/api/v1/policy/rollout").json()
    return document


def begin(sidecar: Sidecar, text: str) -> str:
    """Bring a canary into the folder and return its revision when it has begun."""
    before = rollout(sidecar).get("canary") if rollout(sidecar)["state"] == "watching" else None
    write(sidecar, text)
    eventually(
        lambda: rollout(sidecar)["state"] == "watching" and rollout(sidecar)["canary"] != before, "no rollout has begun"
    )
    return str(rollout(sidecar)["canary"])


def in_force(sidecar: Sidecar) -> str:
    return str(sidecar.admin("/api/v1/policy").json()["revision"])


def say(sidecar: Sidecar, *names: str, content: str = MAIL) -> list[Message]:
    """Ask once for each of these conversations, over one connection."""
    answers = []
    with caller(sidecar.data_port, 20) as wire:
        for name in names:
            wire.send(chat(content, {"x-readygate-conversation": name}))
            answers.append(wire.message())
    return answers


def revisions(sidecar: Sidecar, *names: str) -> dict[str, str]:
    """Return conversation -> revision."""
    return dict(zip(names, (str(answer.get("x-readygate-policy")) for answer in say(sidecar, *names)), strict=True))


def until(sidecar: Sidecar, state: str, within_s: float = 8.0) -> dict[str, Any]:
    """Keep asking until the rollout is in a state; return it."""
    number = 0

    def reached() -> bool:
        nonlocal number
        number += 1
        say(sidecar, *(f"{state}-{number}-{n}" for n in range(20)))
        return str(rollout(sidecar)["state"]) == state

    eventually(reached, f"the rollout is not {state}: {rollout(sidecar)}", within_s)
    return rollout(sidecar)


def post(sidecar: Sidecar, path: str, body: dict[str, object] | None = None) -> Message:
    data = json.dumps(body or {}).encode()
    return ask(sidecar.admin_port, request("POST", f"/api/v1/policy/{path}", data, PROOF))


def verb(sidecar: Sidecar, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run a verb of ``readygate policy`` here; return its exit code and what it printed."""
    parser = argparse.ArgumentParser()
    policy_verb.add_parser(parser.add_subparsers())
    where = ["-c", str(sidecar.folder / "config.yaml"), "--url", f"http://127.0.0.1:{sidecar.admin_port}"]
    capsys.readouterr()
    code = policy_verb.run(parser.parse_args(["policy", *words, *where]))
    shown = capsys.readouterr()
    return code, shown.out + shown.err


NAMES = tuple(f"talk-{number}" for number in range(120))


def test_a_share_of_conversations_uses_the_canary_and_keeps_to_it(tmp_path: Path, provider: Simulator) -> None:
    """Every exchange has one revision: in its header, its row and what its provider was asked. Restarts and other sidecars agree."""
    with sidecar_on(tmp_path / "a", provider) as sidecar:
        old = in_force(sidecar)
        new = begin(sidecar, policy("redact", SLOW, model="new"))
        answers = say(sidecar, *NAMES)
        told = dict(zip(NAMES, (str(answer.get("x-readygate-policy")) for answer in answers), strict=True))
        assert {old, new} == set(told.values())
        assert 28 <= sum(found == new for found in told.values()) <= 68
        assert told == revisions(sidecar, *NAMES)

        rows = {row["id"]: row for row in sidecar.rows(count=2 * len(NAMES), within_s=20)}
        for answer in answers:
            row = rows[str(answer.get("x-readygate-id"))]
            model = "new" if answer.get("x-readygate-policy") == new else "old"
            assert (answer.get("x-readygate-policy"), model) == (row["policy_revision"], row["model_served"])
        with sidecar_on(tmp_path / "b", provider) as other:
            assert new == begin(other, policy("redact", SLOW, model="new"))
            assert told == revisions(other, *NAMES)
    with serving(tmp_path / "a") as sidecar:
        assert (old, new) == (in_force(sidecar), rollout(sidecar)["canary"])
        assert told == revisions(sidecar, *NAMES)
    sent = [entry.body.decode() for entry in provider.entries if b"ana.souza" in entry.body or b"[EMAIL" in entry.body]
    assert 4 * len(NAMES) == len(sent)
    assert [] == [body for body in sent if ('"new"' in body) == ("ana.souza" in body)]


def test_a_conversation_without_a_name_is_known_by_its_beginning(tmp_path: Path, provider: Simulator) -> None:
    """Later turns repeat the first message, also when they have grown beyond what is parsed at once."""
    with sidecar_on(tmp_path, provider) as sidecar:
        new = begin(sidecar, policy("redact", SLOW, model="new"))
        for number in range(8):
            first = {"role": "user", "content": f"question {number}"}
            turns = [[first], [first, {"role": "assistant", "content": "yes"}, {"role": "user", "content": "go on"}]]
            turns.append([*turns[1], {"role": "user", "content": "long " * 60_000}])
            told = {sidecar.ask(chat(messages=turn)).get("x-readygate-policy") for turn in turns}
            assert 1 == len(told)
        shown = rollout(sidecar)["counts"]
        assert (24, new) == (shown["canary"]["exchanges"] + shown["stable"]["exchanges"], rollout(sidecar)["canary"])


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        pytest.param(policy("block", SLOW), "refusals", id="refuses"),
        pytest.param(policy("redact", SLOW, provider="away"), "errors", id="fails", marks=pytest.mark.slow),
    ],
)
def test_a_bad_edit_is_taken_back(
    tmp_path: Path, provider: Simulator, bad: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within a second of having seen enough; the reason is told everywhere, and the same texts are not tried again."""
    with sidecar_on(tmp_path, provider) as sidecar:
        old = in_force(sidecar)
        new = begin(sidecar, bad)
        ended = until(sidecar, "taken back")
        assert (new, old, True) == (ended["canary"], ended["stable"], ended["reason"].startswith(what))
        assert (ended["counts"]["canary"]["exchanges"], 0) == (
            ended["counts"]["canary"][what],
            ended["counts"]["stable"][what],
        )
        assert {(200, old)} == {(one.status, one.get("x-readygate-policy")) for one in say(sidecar, *NAMES[:40])}

        policy_row = sidecar.health()["components"]["policy"]
        assert ("degraded", old) == (policy_row["state"], policy_row["revision"])
        assert f"revision {new} was taken back: {what}" in policy_row["reason"]
        assert 1 == sidecar.metric("readygate_rollouts_total", result="taken_back")
        assert "policy_taken_back" in sidecar.log()
        assert f"{new}" in verb(sidecar, capsys, "history")[1].splitlines()[0]
        assert "taken back" in verb(sidecar, capsys, "history")[1].splitlines()[0]
        assert 1 == verb(sidecar, capsys, "rollout")[0]

        write(sidecar, f"# a comment\n{bad}")
        eventually(lambda: "policy_still_taken_back" in sidecar.log(), "the edit was not seen")
        assert ("taken back", old) == (rollout(sidecar)["state"], in_force(sidecar))
    with serving(tmp_path) as sidecar:
        assert ("taken back", old) == (rollout(sidecar)["state"], in_force(sidecar))
        assert {old} == set(revisions(sidecar, *NAMES[:20]).values())
        assert new == begin(sidecar, bad.replace("40%", "41%"))
        write(sidecar, policy("mask"))
        eventually(lambda: rollout(sidecar)["state"] == "none", "a good edit does not end it")
        assert ("ok", 1) == (
            sidecar.health()["components"]["policy"]["state"],
            len(set(revisions(sidecar, *NAMES[:20]).values())),
        )


def test_a_good_edit_is_promoted_when_it_was_watched(tmp_path: Path, provider: Simulator) -> None:
    """Step by step, and who met it keeps it."""
    text = policy("redact", "{share: [30%, 70%], watch: 1500ms, min_exchanges: 10}")
    with sidecar_on(tmp_path, provider) as sidecar:
        new = begin(sidecar, text)
        first = {name for name, found in revisions(sidecar, *NAMES[:40]).items() if found == new}
        eventually(lambda: bool(revisions(sidecar, *NAMES[:30])) and rollout(sidecar).get("step") == 2, "no step")
        second = {name for name, found in revisions(sidecar, *NAMES[:40]).items() if found == new}
        assert first < second
        until(sidecar, "none")
        assert (new, {new}) == (in_force(sidecar), set(revisions(sidecar, *NAMES[:20]).values()))
        assert 1 == sidecar.metric("readygate_rollouts_total", result="promoted")
        assert "policy_promoted" in sidecar.log()


@pytest.mark.slow
def test_what_was_promoted_never_waits_again(tmp_path: Path, provider: Simulator) -> None:
    """A way back, and the way forward again, must not take a quarter of an hour; nor does a restart forget it."""
    text = policy("redact", SLOW)
    with sidecar_on(tmp_path, provider) as sidecar:
        old = in_force(sidecar)
        new = begin(sidecar, text)
        assert 200 == post(sidecar, "rollout/promote").status
        write(sidecar, policy())
        eventually(lambda: in_force(sidecar) == old, "no edit")
        write(sidecar, text)
        eventually(lambda: in_force(sidecar) == new, "what was in force before waits again")
    with serving(tmp_path) as sidecar:
        assert (new, "none") == (in_force(sidecar), rollout(sidecar)["state"])


def test_people_promote_and_take_back(tmp_path: Path, provider: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """By one command each, for the canary they have looked at and no other; the history says who and why."""
    with sidecar_on(tmp_path, provider) as sidecar:
        old = in_force(sidecar)
        assert 409 == post(sidecar, "rollout/promote").status
        new = begin(sidecar, policy("redact", SLOW))
        assert (409, 400) == (
            post(sidecar, "rollout/promote", {"revision": old}).status,
            post(sidecar, "rollout/take-back", {"revison": new}).status,
        )
        assert 0 == verb(sidecar, capsys, "take-back", new, "--why", "not today")[0]
        assert ("taken back", old) == (rollout(sidecar)["state"], in_force(sidecar))
        assert 1 == verb(sidecar, capsys, "promote")[0]

        next_one = begin(sidecar, policy("mask", SLOW))
        assert 0 == verb(sidecar, capsys, "promote", "--why", "looks well")[0]
        assert next_one == in_force(sidecar)
        history = json.loads(verb(sidecar, capsys, "history", "--format", "json")[1])["revisions"]
        told = {one["revision"]: (one["step"], one["why"]) for one in history}
        assert ("taken back", True) == (told[new][0], "not today" in told[new][1])
        assert ("in force", "looks well") == told[next_one]


@pytest.mark.slow
def test_a_canary_waits_for_word_and_for_exchanges(tmp_path: Path, provider: Simulator) -> None:
    """Nobody is promoted whom nobody has tried; with `then: wait` nobody is promoted unasked."""
    with sidecar_on(tmp_path, provider) as sidecar:
        old = in_force(sidecar)
        begin(sidecar, policy("redact", "{share: 40%, watch: 1s, min_exchanges: 10, then: wait}"))
        eventually(lambda: rollout(sidecar)["state"] == "waiting for exchanges", "it does not wait for exchanges")
        until(sidecar, "waiting for promotion")
        assert old == in_force(sidecar)


def test_other_edits_during_a_rollout(tmp_path: Path, provider: Simulator) -> None:
    """A second edit replaces the canary, a bad one changes nothing, a pin is for everybody, the old text ends it."""
    with sidecar_on(tmp_path, provider) as sidecar:
        old = in_force(sidecar)
        new = begin(sidecar, policy("redact", SLOW))
        write(sidecar, policy("redact", SLOW).replace("routes", "routs"))
        eventually(lambda: sidecar.health()["components"]["policy"]["state"] == "degraded", "a bad edit is not told")
        assert {old, new} == set(revisions(sidecar, *NAMES[:60]).values())

        newer = begin(sidecar, policy("mask", SLOW))
        assert {old, newer} == set(revisions(sidecar, *NAMES[:60]).values())
        assert 200 == post(sidecar, "pin", {"revision": old, "why": "hold it"}).status
        assert ({old}, "none") == (set(revisions(sidecar, *NAMES[:60]).values()), rollout(sidecar)["state"])
        assert 200 == ask(sidecar.admin_port, request("DELETE", "/api/v1/policy/pin", headers=PROOF)).status
        assert ("watching", newer) == (rollout(sidecar)["state"], rollout(sidecar)["canary"])

        write(sidecar, policy())
        eventually(lambda: rollout(sidecar)["state"] == "none", "the old text does not end it")
        assert ({old}, old) == (set(revisions(sidecar, *NAMES[:60]).values()), in_force(sidecar))
        last = begin(sidecar, policy("hash", SLOW))
        write(sidecar, policy("hash"))
        eventually(lambda: in_force(sidecar) == last, "texts without a rollout are not in force")


@pytest.mark.parametrize("store", ["memory", pytest.param("redis", marks=pytest.mark.slow)])
def test_what_a_budget_has_used_is_one_sum_for_both(
    tmp_path: Path, provider: Simulator, store: str, own_redis: RedisServer
) -> None:
    """Each revision holds it against its own limit: a limit that is set too low is seen in the canary, and nothing is refunded."""
    budget = "budgets: [{id: rate, requests_per_day: LIMIT, when_exhausted: refuse}]"
    wide, tight = (budget.replace("LIMIT", str(limit)) for limit in (1000, 30))
    shared = f'budgets: {{store: "{own_redis.url}", max_sidecars: 1, private_share: 0.0}}\n' if store == "redis" else ""
    with sidecar_for(tmp_path, config(provider) + shared, policy(more=wide)) as sidecar:
        say(sidecar, *NAMES[:30])
        new = begin(sidecar, policy(more=tight, rollout=SLOW))
        answers = say(sidecar, *NAMES[:20])
        told = {(one.get("x-readygate-policy") == new, one.status) for one in answers}
        assert {(True, 429), (False, 200)} == told
        used = sidecar.metric("readygate_budget_used", budget="default/rate")
        ended = until(sidecar, "taken back")
        assert ended["reason"].startswith("refusals")
        assert 30 + sum(one.status == 200 for one in answers) == used
        assert used < sidecar.metric("readygate_budget_used", budget="default/rate")


@pytest.mark.slow
def test_deadlines_of_the_canary_do_not_shut_out_the_others(tmp_path: Path, provider: Simulator) -> None:
    """A canary that gives its provider no time fails alone: the breaker of the revision before stays closed."""
    with threaded_simulator(speech=Speech(latency=0.08)) as slow, sidecar_on(tmp_path, slow) as sidecar:
        hasty = policy("observe", "{share: 90%, watch: 1h, min_exchanges: 40}").replace(
            "retries: none", "retries: none, timeouts: {first_byte: 10ms}"
        )
        old = in_force(sidecar)
        begin(sidecar, hasty)
        told = say(sidecar, *NAMES[:60])
        assert [] == [one.status for one in told if one.get("x-readygate-policy") == old and one.status != 200]
        assert {False} == {one.status == 200 for one in told if one.get("x-readygate-policy") != old}


class Talker(threading.Thread):
    """A caller that asks about ever new conversations, every other one streamed, until it is told to stop."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self._port, self._number = port, number
        self.is_over = threading.Event()
        self.told: list[tuple[str, str, str]] = []
        """Id, revision, model served."""

    def run(self) -> None:
        count = 0
        with caller(self._port, 20) as wire:
            while not self.is_over.is_set():
                count += 1
                name = {"x-readygate-conversation": f"{self._number}-{count // 3}"}
                wire.send(chat(MAIL, name, stream=count % 2 == 0))
                answer = wire.message()
                assert 200 == answer.status
                id_, revision, model = (str(answer.get(f"x-readygate-{word}")) for word in ("id", "policy", "model"))
                self.told.append((id_, revision, model))


def test_no_exchange_sees_two_revisions_while_rollouts_come_and_go(tmp_path: Path, provider: Simulator) -> None:
    """Begun, replaced, promoted, taken back under load: each answer is of one revision, and so is its row."""
    with sidecar_on(tmp_path, provider) as sidecar:
        callers = [Talker(sidecar.data_port, number) for number in range(3)]
        for one in callers:
            one.start()
        models = {in_force(sidecar): "old"}
        for number, path in enumerate(["promote", "take-back", "", "promote", "", "take-back"]):
            models[begin(sidecar, policy("redact", SLOW, model=f"model-{number}"))] = f"model-{number}"
            if path:
                assert 200 == post(sidecar, f"rollout/{path}").status
        for one in callers:
            one.is_over.set()
            one.join(20)
        told = [answer for one in callers for answer in one.told]
        assert len(models) == 7
        assert {(revision, models.get(revision)) for _, revision, _ in told} == {
            (revision, model) for _, revision, model in told
        }
        rows = {row["id"]: row for row in sidecar.rows(count=len(told), within_s=30)}
        for id_, revision, model in told:
            assert (revision, model) == (rows[id_]["policy_revision"], rows[id_]["model_served"])
        figures = rollout(sidecar)["counts"]
        assert (0, 0) == (figures["canary"]["errors"], figures["stable"]["errors"])


@pytest.mark.slow
def test_the_shadow_is_told_what_the_revision_before_decided(tmp_path: Path, provider: Simulator) -> None:
    """A third revision is compared with the one in force; what the canary did is neither compared nor lost."""
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "default.yaml").write_text(policy("block"))
    with sidecar_for(tmp_path, config(provider) + "shadow: next/\n", policy()) as sidecar:
        eventually(lambda: bool(sidecar.admin("/api/v1/policy/shadow").json()["revision"]), "no candidate")
        old = in_force(sidecar)
        begin(sidecar, policy("redact", SLOW))
        of_old = sum(found == old for found in revisions(sidecar, *NAMES[:60]).values())
        shown: dict[str, Any] = {}

        def is_compared() -> bool:
            shown.update(sidecar.admin("/api/v1/policy/shadow").json())
            return bool(shown["exchanges"] == of_old)

        eventually(is_compared, f"not compared: {shown}")
        assert (old, of_old, 0) == (shown["against"], shown["changed"], shown["dropped"])


@pytest.mark.slow
def test_a_pin_overrules_what_was_taken_back_and_forgets_nothing(tmp_path: Path, provider: Simulator) -> None:
    """Whoever pins the canary after all has it for everybody; after the pin the folder's texts are as refused as before."""
    with sidecar_on(tmp_path, provider) as sidecar:
        old = in_force(sidecar)
        new = begin(sidecar, policy("redact", SLOW))
        assert 200 == post(sidecar, "rollout/take-back").status
        assert 200 == post(sidecar, "pin", {"revision": new}).status
        assert (new, "ok") == (in_force(sidecar), sidecar.health()["components"]["policy"]["state"])
        assert {new} == set(revisions(sidecar, *NAMES[:10]).values())
        assert 200 == ask(sidecar.admin_port, request("DELETE", "/api/v1/policy/pin", headers=PROOF)).status
        assert (old, "taken back") == (in_force(sidecar), rollout(sidecar)["state"])
        assert {old} == set(revisions(sidecar, *NAMES[:10]).values())
        assert "degraded" == sidecar.health()["components"]["policy"]["state"]
