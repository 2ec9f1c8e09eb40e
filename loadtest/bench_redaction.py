"""Times the redaction of requests and answers alone: microseconds of one thread, best of several rounds.

Run: ``python loadtest/bench_redaction.py``. Compare ratios within one run; absolute values drift with the machine.
"""

from __future__ import annotations

import gc
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import orjson

from proxy.core.dialect import Dialect, StreamWatch
from proxy.core.redaction import AnswerRestorer, Redacted, RequestRedactor, StreamRestorer, Untouched
from proxy.core.redaction.detect import build_detector
from proxy.terms.redaction import Action, DirectionPlan, RedactionPlan

ROUNDS = 7
PROSE = (
    "Please summarise the attached meeting notes for the regional team. The rollout of the new billing flow went well "
    "in the first week, support saw fewer tickets than expected, and the remaining open points are the export of "
    "invoices, the wording of the reminder mail and the numbers for the board. Keep it short, use bullet points, and "
    "say clearly what has been decided and what is still open. "
)
FIVE = "Write to ana.souza@example.com.br or bob@example.org, CPF 529.982.247-25, card 4111 1111 1111 1111, phone +55 11 98765-4321. "


def chat(text: str) -> bytes:
    """Return a chat request of about 1.1 KB around a text."""
    filler = (PROSE * 2)[: 1100 - len(text) - 230]
    return orjson.dumps({
        "model": "gpt-4o-mini", "temperature": 0.2, "max_tokens": 400, "user": "app-frontend",
        "messages": [
            {"role": "system", "content": "You are a concise assistant for the operations team."},
            {"role": "user", "content": filler + text},
        ],
    })  # fmt: skip


def answer(text: str) -> bytes:
    """Return a whole chat answer of about 0.8 KB."""
    return orjson.dumps({
        "id": "chatcmpl-9kQ2", "object": "chat.completion", "created": 1760000000, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text + PROSE}, "logprobs": None,
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 210, "completion_tokens": 96, "total_tokens": 306},
    })  # fmt: skip


def chunk(content: str) -> bytes:
    """Return one streamed chat event as OpenAI sends it."""
    document = {
        "id": "chatcmpl-9kQ2", "object": "chat.completion.chunk", "created": 1760000000, "model": "gpt-4o-mini",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": {"content": content}, "logprobs": None, "finish_reason": None}],
    }  # fmt: skip
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def best_us(work: Callable[[], Any], times: int = 2000) -> float:
    """Return the microseconds of one call in the best round."""
    best = float("inf")
    gc.disable()
    for _ in range(ROUNDS):
        begun = time.thread_time_ns()
        for _ in range(times):
            work()
        best = min(best, (time.thread_time_ns() - begun) / times / 1000)
    gc.enable()
    return best


def requests(redactor: RequestRedactor, detector: Any) -> Redacted:
    """Print the request side and return a verdict with five values in its vault."""
    silent, five = chat(""), chat(FIVE)
    verdict = redactor.redact(five, Dialect.CHAT)
    assert isinstance(redactor.redact(silent, Dialect.CHAT), Untouched)
    assert isinstance(verdict, Redacted), verdict
    line(f"request {len(silent)} B, 0 findings", best_us(lambda: redactor.redact(silent, Dialect.CHAT)), 10)
    found = sum(verdict.findings.values())
    line(f"request {len(five)} B, {found} findings", best_us(lambda: redactor.redact(five, Dialect.CHAT)), 60)
    fresh = itertools.cycle([chat(FIVE.replace("ana", f"ana{n:05}")) for n in range(10_000)])
    line("  the same, a text not met before", best_us(lambda: redactor.redact(next(fresh), Dialect.CHAT)), 80)
    text = orjson.loads(five)["messages"][1]["content"]
    line("  of it: the gate", best_us(lambda: detector.may_contain(five)))
    line("  of it: the detector on the long text", best_us(lambda: detector.find(text)))
    line("  of it: parse and serialise", best_us(lambda: orjson.dumps(orjson.loads(five))))
    large = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": PROSE * 2500}]})
    line(f"request {len(large) >> 20} MiB, 0 findings", best_us(lambda: redactor.redact(large, Dialect.CHAT), 1))
    large = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": (PROSE + FIVE) * 2000}]})
    line(f"request {len(large) >> 20} MiB, 10,000 places", best_us(lambda: redactor.redact(large, Dialect.CHAT), 1))
    return verdict


def answers(verdict: Redacted) -> None:
    """Print the answer side."""
    restorer = AnswerRestorer(verdict.vault, Dialect.CHAT)
    for name, text in (("no placeholder", ""), ("two placeholders", "[EMAIL-1] [CPF-1] "), ("a bracket", "[1] ")):
        body = answer(text)
        line(f"whole answer {len(body)} B, {name}", best_us(lambda body=body: restorer.whole(body)))  # type: ignore[misc]


def streams(verdict: Redacted) -> None:
    """Print what one streamed event costs."""
    plain, newline, tag = chunk(" word"), chunk("x\n\n"), chunk("to [EMAIL-1] ")
    split = [chunk("to ["), chunk("EMAIL"), chunk("-"), chunk("1"), chunk("] now")]
    several = b"".join([plain] * 8)
    watch = StreamWatch(Dialect.CHAT)
    watch.feed(plain)
    line(f"StreamWatch, event of {len(plain)} B", best_us(lambda: watch.feed(plain)), 3)
    line("StreamWatch, per event, 8 in a read", best_us(lambda: watch.feed(several)) / 8, 3)
    restorer = StreamRestorer(verdict.vault, Dialect.CHAT)
    line("StreamRestorer, plain event", best_us(lambda: restorer.feed(plain)), 10)
    line("StreamRestorer, per event, 8 in a read", best_us(lambda: restorer.feed(several)) / 8, 10)
    line("StreamRestorer, line breaks", best_us(lambda: restorer.feed(newline)), 10)
    line("StreamRestorer, whole placeholder", best_us(lambda: restorer.feed(tag)), 10)
    line(
        "StreamRestorer, per event, placeholder over 5",
        best_us(lambda: [restorer.feed(piece) for piece in split]) / 5,
        10,
    )


def line(name: str, us: float, target_us: float | None = None) -> None:
    """Print one figure and its target."""
    print(f"{name:48} {us:10.2f} µs" + (f"   target {target_us:g}" if target_us is not None else ""))


def main() -> None:
    """Print all figures."""
    detector = build_detector()
    plan = RedactionPlan(request=DirectionPlan(default=Action.RESTORE))
    verdict = requests(RequestRedactor(plan, detector), detector)
    answers(verdict)
    streams(verdict)


if __name__ == "__main__":
    main()
