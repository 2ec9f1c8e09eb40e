"""What a caller has of a stream that breaks, under each ``rescue``: the whole answer, or an error no client can mistake.

The simulated provider breaks the streams and its journal tells what each target was asked.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from proxy.core.sse import EventDecoder
from tests.support.simulator import Simulator
from tests.support.wire import Message, Sidecar, chat, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

WORDS = " ".join(f"word{n}" for n in range(60))
PACED = {"x-sim-speech": "rate=2000"}
BREAKS = ["cut", "reset", "clean_end", "stall", "error_event", "malformed"]

PAIR = "chain: [{provider: one, model: M-1}, {provider: two, model: M-2}], retries: none"
KINDS = {
    "pair": f"{PAIR}, rescue: resume",
    "prefilled": f"{PAIR.replace('M-2', 'M-2, prefill: true')}, rescue: resume",
    "triple": "chain: [{provider: one, model: M-1}, {provider: two, model: M-2}, "
    "{provider: three, model: M-3, prefill: true}], retries: none, rescue: resume",
    "alone": "chain: [{provider: one, model: M-1}], rescue: resume",
    "held": f"{PAIR}, rescue: hold",
    "plain": PAIR,
    "slow": f"{PAIR}, timeouts: {{first_token: 150ms}}",
    "slower": f"{PAIR}, timeouts: {{first_token: 500ms}}",
    "strict": f"{PAIR}, timeouts: {{first_token: 150ms}}, first_token_for: all",
}
COPIES = 30
"""Each kind of route so many times, each a set of deployments of its own, so that no breaker spoils the next test."""


def _routes() -> str:
    rows = []
    for kind, rest in KINDS.items():
        text = rest if "timeouts" in rest else f"{rest}, timeouts: {{idle: 250ms, first_byte: 300ms}}"
        rows += [
            f"  - {{match: {{models: [{kind}-{n}]}}, {text.replace('M-', f'{kind}{n}-')}}}\n" for n in range(COPIES)
        ]
    return "".join(rows)


POLICY = f"""
version: 1
policy: default
redaction: {{request: {{default: restore}}}}
routes:
{_routes()}
"""

_turns = count()


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    rows = "".join(f'  {name}: {{base_url: "{provider.origin}/{name}/v1"}}\n' for name in ("one", "two", "three"))
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), f"providers:\n{rows}", POLICY) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


def ask(sidecar: Sidecar, kind: str, text: str = WORDS, **fields: Any) -> Message:
    """Ask the next route of that kind for a stream of ``text``."""
    model = f"{kind}-{next(_turns) % COPIES}"
    return sidecar.ask(chat(f"echo: {text}", PACED, model=model, stream=True, **fields))


def asked(provider: Simulator) -> list[str]:
    """The providers that were asked, in order."""
    return [entry.provider for entry in provider.entries]


def row_of(sidecar: Sidecar, answer: Message) -> tuple[str, int, str, list[str]]:
    """Status, HTTP status, error code, and the attempts' outcomes of an answer's row."""
    row = sidecar.row(answer.get("x-readygate-id"))
    return row["status"], row["http_status"], row["error_code"], [a["outcome"] for a in json.loads(row["attempts"])]


def events_of(answer: Message) -> list[str]:
    """The data of a stream's events, whatever its line ends."""
    return [event.data.decode() for event in EventDecoder().feed(answer.body) if event.data is not None]


def text_of(answer: Message) -> str:
    """The text of a chat stream so far."""
    documents = [json.loads(event) for event in events_of(answer) if event != "[DONE]"]
    choices = [choice for document in documents for choice in document.get("choices", [])]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def is_whole(answer: Message, text: str = WORDS) -> None:
    """Hold an answer to be one good stream: the text, one id, one model, a finish, [DONE], and a proper end."""
    assert (200, "whole") == (answer.status, answer.ended)
    assert text == text_of(answer)
    assert "[DONE]" == events_of(answer)[-1]
    documents = [json.loads(event) for event in events_of(answer)[:-1]]
    for key in ("id", "model", "created"):
        assert 1 == len({document[key] for document in documents}), key
    finishes = [c["finish_reason"] for d in documents for c in d["choices"] if c["finish_reason"]]
    assert ["stop"] == finishes
    roles = [c["delta"]["role"] for d in documents for c in d["choices"] if c["delta"].get("role")]
    assert ["assistant"] == roles


def is_error(answer: Message, code: str, text: str = WORDS) -> None:
    """Hold an answer to be broken beyond doubt: a beginning of the text, then an error event and a cut connection."""
    assert (200, "eof") == (answer.status, answer.ended)
    assert text.startswith(text_of(answer))
    assert "[DONE]" not in events_of(answer)
    assert code == json.loads(events_of(answer)[-1])["error"]["code"]


# ---------------------------------------------------------------- resume


@pytest.mark.parametrize("fault", BREAKS)
@pytest.mark.parametrize("kind", ["pair", "prefilled"])
def test_broken_stream_goes_on_at_the_next_target(sidecar: Sidecar, provider: Simulator, kind: str, fault: str) -> None:
    """After 40 of 60 tokens the caller gets the other 20 as if nothing had happened, with prefill and without."""
    provider.script(f"{fault}:after=40")
    answer = ask(sidecar, kind)

    is_whole(answer)
    assert ["one", "two"] == asked(provider)
    status, http_status, code, outcomes = row_of(sidecar, answer)
    assert ("rescued", 200, "", "ok", 2) == (status, http_status, code, outcomes[-1], len(outcomes))
    last = json.loads(provider.last.body)["messages"][-1]
    assert ("assistant" if kind == "prefilled" else "user") == last["role"]
    if kind == "prefilled":
        assert " ".join(WORDS.split()[:35]) in last["content"]
        assert WORDS.startswith(last["content"])


def test_target_that_refuses_prefill_begins_anew_and_is_aligned(sidecar: Sidecar, provider: Simulator) -> None:
    """A declaration that turns out wrong costs one attempt, not the answer."""
    provider.script("cut:after=40", "no_prefill")
    answer = ask(sidecar, "prefilled")

    is_whole(answer)
    assert ["one", "two", "two"] == asked(provider)
    assert ("rescued", 200, "", ["truncated", "upstream_4xx", "ok"]) == row_of(sidecar, answer)


def test_target_that_says_something_else_ends_in_an_error(sidecar: Sidecar, provider: Simulator) -> None:
    """Two half answers are no answer; what was delivered stays a beginning."""
    provider.script("reset:after=40", {"content": "Something quite different. " * 20})
    answer = ask(sidecar, "pair")

    is_error(answer, "upstream_reset")
    assert " ".join(WORDS.split()[:40]) == text_of(answer)
    assert ("error", 200, "upstream_reset", ["reset", "unaligned"]) == row_of(sidecar, answer)


def test_target_that_stops_short_of_what_was_said_ends_in_an_error(sidecar: Sidecar, provider: Simulator) -> None:
    """A shorter answer that finishes properly is not the rest of a longer one."""
    provider.script("cut:after=40", {"content": " ".join(WORDS.split()[:30])})
    answer = ask(sidecar, "pair")

    is_error(answer, "upstream_truncated")


def test_unaligned_target_is_passed_over_for_one_that_goes_on(sidecar: Sidecar, provider: Simulator) -> None:
    """Nothing was sent while it was compared, so another target can still do it."""
    provider.script("cut:after=40", {"content": "Something quite different. " * 20})
    answer = ask(sidecar, "triple")

    is_whole(answer)
    assert ["one", "two", "three"] == asked(provider)


def test_rescue_that_breaks_too_is_rescued(sidecar: Sidecar, provider: Simulator) -> None:
    """Both seams keep the text exact."""
    provider.script("cut:after=20", "reset:after=45")
    answer = ask(sidecar, "triple")

    is_whole(answer)
    assert ("rescued", 200, "", ["truncated", "reset", "ok"]) == row_of(sidecar, answer)


def test_rescue_that_breaks_while_it_repeats_is_rescued(sidecar: Sidecar, provider: Simulator) -> None:
    """What it had repeated was never sent twice."""
    provider.script("cut:after=40", "cut:after=20")
    answer = ask(sidecar, "triple")

    is_whole(answer)


@pytest.mark.parametrize("fault", ["503", "429:retry_after=30", "html", "silence", "400"])
def test_rescue_that_fails_ends_in_the_first_error(sidecar: Sidecar, provider: Simulator, fault: str) -> None:
    """The caller hears what happened to the answer it saw, once, and every attempt is in the row."""
    provider.script("cut:after=40", fault)
    answer = ask(sidecar, "pair")

    is_error(answer, "upstream_truncated")
    assert 2 == len(row_of(sidecar, answer)[3])


def test_only_target_is_asked_once_more(sidecar: Sidecar, provider: Simulator) -> None:
    """With retries allowed, a chain of one can still mend a stream."""
    provider.script("reset:after=40")
    answer = ask(sidecar, "alone")

    is_whole(answer)
    assert ["one", "one"] == asked(provider)


NOT_PLAIN = {
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}},
    "choices": {"n": 2},
}


@pytest.mark.parametrize("fields", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_streams_that_are_not_plain_text_are_never_resumed(
    sidecar: Sidecar, provider: Simulator, fields: dict[str, Any]
) -> None:
    """Half a tool call or half a document cannot be continued by another model."""
    provider.script("cut:after=3")
    answer = ask(sidecar, "pair", **fields)

    assert "eof" == answer.ended
    assert "upstream_truncated" == json.loads(events_of(answer)[-1])["error"]["code"]
    assert ["one"] == asked(provider)


def test_break_behind_the_finish_reason_is_whole(sidecar: Sidecar, provider: Simulator) -> None:
    """The text is complete; only the end mark is missing, and nobody is asked again."""
    provider.script("reset:after=61")
    answer = ask(sidecar, "pair")

    is_whole(answer)
    assert ["one"] == asked(provider)


def test_content_refusal_in_mid_stream_is_not_taken_elsewhere(sidecar: Sidecar, provider: Simulator) -> None:
    """Another provider's different opinion is no rescue."""
    provider.script("error_event:after=40,type=invalid_request_error,code=content_filter")
    answer = ask(sidecar, "pair")

    assert ["one"] == asked(provider)
    assert "content_filter" == json.loads(events_of(answer)[-1])["error"]["code"]


def test_values_are_restored_across_the_seam_and_stay_here(sidecar: Sidecar, provider: Simulator) -> None:
    """A cut between, before or within a placeholder changes nothing, and no target sees the value."""
    text = "Please write to jane.doe@example.org and to john.roe@example.org about the order today"
    for kind in ("pair", "prefilled"):
        for after in (3, 4, 5, 7, 8, 10):
            provider.reset()
            provider.script(f"cut:after={after},chars=5")
            answer = ask(sidecar, kind, text)

            is_whole(answer, text)
            assert ["one", "two"] == asked(provider)
            assert not any(b"jane.doe" in entry.body or b"john.roe" in entry.body for entry in provider.entries)


def test_usage_is_the_sum_of_what_was_used(sidecar: Sidecar, provider: Simulator) -> None:
    """The caller's usage event and the row agree, and neither hides the attempt that broke."""
    provider.script("cut:after=40")
    answer = ask(sidecar, "pair", stream_options={"include_usage": True})

    is_whole(answer)
    usage = json.loads(events_of(answer)[-2])["usage"]
    row = sidecar.row(answer.get("x-readygate-id"))
    assert (row["tokens_in"], row["tokens_out"], 1) == (
        usage["prompt_tokens"], usage["completion_tokens"], row["tokens_estimated"],
    )  # fmt: skip
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 90 <= row["tokens_out"] <= 200


def test_prefilled_rest_keeps_the_callers_token_limit(sidecar: Sidecar, provider: Simulator) -> None:
    """What was said already counts against max_tokens."""
    provider.script("cut:after=40")
    ask(sidecar, "prefilled", max_tokens=100)

    assert [100, 60] == [json.loads(entry.body)["max_tokens"] for entry in provider.entries]


# ---------------------------------------------------------------- hold and none


@pytest.mark.parametrize("fault", [f"{name}:after=40" for name in BREAKS] + ["503"])
def test_held_stream_is_delivered_whole_or_not_at_all(sidecar: Sidecar, provider: Simulator, fault: str) -> None:
    """The break stays unseen: the caller gets the second target's stream from its first byte."""
    provider.script(fault)
    answer = ask(sidecar, "held")

    is_whole(answer)
    assert ("2", "two") == (answer.get("x-readygate-attempts"), answer.get("x-readygate-provider"))
    assert "fallback" == row_of(sidecar, answer)[0]


def test_held_stream_that_breaks_everywhere_is_an_honest_status(sidecar: Sidecar, provider: Simulator) -> None:
    """Nothing was sent, so the error has a status of its own."""
    provider.script("cut:after=40", "reset:after=50")
    answer = ask(sidecar, "held")

    assert (502, "upstream_truncated") == (answer.status, answer.error["code"])


def test_without_rescue_the_stream_ends_in_an_error(sidecar: Sidecar, provider: Simulator) -> None:
    """No policy, no second bill."""
    provider.script("cut:after=40")
    answer = ask(sidecar, "plain")

    is_error(answer, "upstream_truncated")
    assert ["one"] == asked(provider)


# ---------------------------------------------------------------- before the first token


@pytest.mark.parametrize("kind", ["slow", "slower"])
def test_slow_first_token_walks_on_unseen(sidecar: Sidecar, provider: Simulator, kind: str) -> None:
    """Whether the head has gone out by then (250 ms) or not, the caller gets one stream."""
    provider.script("ok:first_token=5")
    began_s = time.monotonic()
    answer = ask(sidecar, kind)

    is_whole(answer)
    assert time.monotonic() - began_s < 2.0
    assert ["one", "two"] == asked(provider)
    assert ("fallback", 200, "", ["first_token_timeout", "ok"]) == row_of(sidecar, answer)


def test_provider_that_says_nothing_at_all_is_cut_by_the_first_token_limit(
    sidecar: Sidecar, provider: Simulator
) -> None:
    """No head is no token either."""
    provider.script("silence")
    answer = ask(sidecar, "slow")

    is_whole(answer)
    assert ["one", "two"] == asked(provider)


def test_last_target_may_take_its_time(sidecar: Sidecar, provider: Simulator) -> None:
    """Better late than never."""
    provider.script("ok:first_token=5", "ok:first_token=1")
    answer = ask(sidecar, "slow")

    is_whole(answer)


def test_target_whose_fellows_are_all_down_may_take_its_time(sidecar: Sidecar, provider: Simulator) -> None:
    """Cutting it would leave the caller with nothing."""
    model = f"slow-{COPIES - 1}"
    for _ in range(5):
        provider.script("429:retry_after_ms=1", "503")
        sidecar.ask(chat(model=model, stream=True))
        time.sleep(0.01)  # noqa: TID251 - the first target's wait; no event loop here
    provider.reset()
    provider.script("ok:first_token=700ms")
    answer = sidecar.ask(chat(f"echo: {WORDS}", PACED, model=model, stream=True))

    is_whole(answer)
    assert ["one"] == asked(provider)


def test_last_target_is_cut_where_policy_says_so(sidecar: Sidecar, provider: Simulator) -> None:
    """Some callers would rather know."""
    provider.script("ok:first_token=5", "ok:first_token=5")
    answer = ask(sidecar, "strict")

    assert (504, "upstream_timeout") == (answer.status, answer.error["code"])


@pytest.mark.parametrize("fault", ["cut", "reset", "stall", "error_event", "malformed"])
def test_break_behind_the_head_but_before_content_walks_on_unseen(
    sidecar: Sidecar, provider: Simulator, fault: str
) -> None:
    """The head goes out after 250 ms; until there is content another target can still answer."""
    provider.script(
        {"fault": f"{fault}:after=prelude,first_token=400ms" if fault != "stall" else "stall:after=prelude"}
    )
    answer = ask(sidecar, "plain")

    is_whole(answer)
    assert ["one", "two"] == asked(provider)


def test_error_behind_the_head_is_in_band_when_nobody_can_answer(sidecar: Sidecar, provider: Simulator) -> None:
    """The status has gone out; the event and the row say what became of it."""
    provider.script("stall:after=prelude", "503")
    answer = ask(sidecar, "plain")

    is_error(answer, "upstream_error")
    assert ("error", 200, "upstream_error", ["stalled", "upstream_5xx"]) == row_of(sidecar, answer)


def test_callers_own_error_as_first_event_does_not_walk(sidecar: Sidecar, provider: Simulator) -> None:
    """It would be the same everywhere; the provider's words come with an honest status."""
    provider.script("error_event:after=head,type=invalid_request_error,code=context_window,message=too long")
    answer = ask(sidecar, "plain")

    assert ["one"] == asked(provider)
    assert (400, "context_window", "too long") == (answer.status, answer.error["code"], answer.error["message"])


# ---------------------------------------------------------------- at random


def _random_step(dice: random.Random) -> str:
    name = dice.choice([*BREAKS, "cut", "reset", "clean_end"])
    where = dice.choice(["head", "prelude", *map(str, range(62))])
    more = dice.choice(["", ",split=7", ",chars=3", ",utf16=1", ",eol=crlf", ",batch=8", ",comments=1"])
    if name in ("cut", "reset", "stall") and dice.random() < 0.3:
        more += f",partial={dice.randrange(1, 60)}"
    return f"{name}:after={where}{more}"


def _cut_at_random(sidecar: Sidecar, provider: Simulator, rounds: int, seed: int) -> dict[str, int]:
    """Break streams at random, sometimes the rescue too; every answer is whole or plainly broken."""
    dice, ends = random.Random(seed), {"whole": 0, "error": 0}
    for turn in range(rounds):
        kind = dice.choice(["pair", "prefilled", "triple", "alone", "held"])
        steps = [_random_step(dice) for _ in range(dice.choice([1, 1, 1, 2, 3]))]
        provider.reset()
        provider.script(*steps)
        text = (
            WORDS
            if dice.random() < 0.8
            else 'emoji 😀 and 你好 and "quotes" \\ and jane.doe@example.org twice: jane.doe@example.org'
        )
        answer = ask(sidecar, kind, text)
        try:
            if answer.status == 200 and answer.ended == "whole":
                is_whole(answer, text)
                ends["whole"] += 1
            elif answer.status == 200:
                assert (False, "eof") == ("[DONE]" in events_of(answer), answer.ended)
                # Half a placeholder may come out at the very end of a broken stream; it says nothing.
                assert text.startswith(re.sub(r"\[[A-Z0-9-]*$", "", text_of(answer)))
                ends["error"] += 1
            else:
                assert answer.status >= 500
                assert answer.error["code"]
                ends["error"] += 1
        except (AssertionError, ValueError) as wrong:
            raise AssertionError(f"turn {turn} of seed {seed}: {kind} {steps}: {wrong}") from wrong
    return ends


def test_no_random_break_ever_becomes_a_truncated_success(sidecar: Sidecar, provider: Simulator) -> None:
    """The short form of the next test."""
    ends = _cut_at_random(sidecar, provider, 40, seed=7)

    assert ends["whole"] >= 20


@pytest.mark.slow
def test_no_break_of_a_thousand_ever_becomes_a_truncated_success(sidecar: Sidecar, provider: Simulator) -> None:
    """A thousand streams broken anywhere, in any way, by one to three targets."""
    ends = _cut_at_random(sidecar, provider, 1000, seed=11)

    assert ends["whole"] >= 500
