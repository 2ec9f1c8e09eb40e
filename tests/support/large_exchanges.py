"""Large exchanges of every kind, and the measure of how long each holds up everybody else.

A case is a request and, where it matters, a provider's answer, of so many megabytes. ``Floor`` runs it through a real
sidecar while a second caller asks short questions, and says by two witnesses how long the event loop was held.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.canned_provider import canned_provider, streamed, whole
from tests.support.second_caller import SecondCaller
from tests.support.wire import Message, Sidecar, request, serving, write_files

WORDS = "The quick brown fox jumps over the lazy dog while nobody looks at the clock on the wall. "
EMAIL = "ana.canary@example.com"
FOUND = f"Write to bob.{{}}@example.org or call +55 11 9{{:04d}}-4321. {WORDS * 5}"
POLICY = """
version: 1
policy: default
redaction: {request: {default: restore}}
routes:
  - {name: renamed, match: {models: ["alias-*"]}, chain: [{provider: main, model: short}], retries: none}
  - {name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
"""
ANSWERS_TOO = POLICY.replace("restore}}", "restore}, response: {default: redact}}")
BUDGETED = POLICY.replace(
    "routes:", "budgets: [{provider: main, tokens_per_minute: 900000000, when_exhausted: refuse}]\nroutes:"
)
BUFFERS_ANSWERS = POLICY.replace("restore}}", "restore}, response: {default: redact, stream: buffer}}")
COUNTS_ANSWERS = POLICY.replace("restore}}", "restore}, response: {default: observe}}")


def _text(size: int, *, has_findings: bool) -> str:
    """Return about ``size`` characters; with findings, two in each 500."""
    if not has_findings:
        return WORDS * (size // len(WORDS))
    return "".join(FOUND.format(n, n % 10_000) for n in range(size // (len(FOUND) + 6)))


# --- what is asked -----------------------------------------------------------------------------------


def chat(model: str, *contents: Any, **fields: Any) -> bytes:
    """Return a chat request as a client sends it."""
    messages = [{"role": "user", "content": content} for content in contents]
    body = json.dumps({"model": model, "messages": messages, **fields}, separators=(",", ":")).encode()
    return request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})


def _one_string(size: int) -> bytes:
    return chat("short", _text(size, has_findings=False) + EMAIL)


def _findings(size: int) -> bytes:
    return chat("short", _text(size, has_findings=True))


def _renamed(size: int) -> bytes:
    return chat("alias-a", _text(size, has_findings=False))


def _fitted(size: int) -> bytes:
    return chat("large", _text(size, has_findings=False), stream=True)


def _many_strings(size: int) -> bytes:
    return chat("short", EMAIL, *[WORDS * 2] * (size // 215))


def _many_keys(size: int) -> bytes:
    names = ("".join(letters) for letters in product("bcdfghjklm", repeat=7))
    return chat("short", EMAIL, metadata=dict.fromkeys(islice(names, size // 12), 1))


def _picture(size: int) -> bytes:
    url = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * (size // 342)).decode()
    return chat("short", [{"type": "text", "text": EMAIL}, {"type": "image_url", "image_url": {"url": url}}])


def _form(size: int) -> bytes:
    fields = [("model", "short"), ("prompt", _text(size, has_findings=True))]
    lines = [f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields]
    body = "".join([*lines, "--b--\r\n"]).encode()
    return request("POST", "/v1/audio/transcriptions", body, {"Content-Type": "multipart/form-data; boundary=b"})


def _batch(size: int) -> bytes:
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
                       "body": {"model": "short", "messages": [{"role": "user", "content": WORDS + EMAIL}]}})  # fmt: skip
    part = 'Content-Disposition: form-data; name="file"; filename="b.jsonl"\r\nContent-Type: application/jsonl\r\n\r\n'
    body = f'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\n{part}'
    body += (line + "\n") * (size // len(line)) + "\r\n--b--\r\n"
    return request("POST", "/v1/files", body.encode(), {"Content-Type": "multipart/form-data; boundary=b"})


# --- what is answered --------------------------------------------------------------------------------

SAID = "As [EMAIL-1] wrote: "


def _completion(*contents: str) -> bytes:
    choices = [
        {"index": n, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for n, text in enumerate(contents)
    ]
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    document = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "served",
        "choices": choices,
        "usage": usage,
    }
    return whole(json.dumps(document).encode())


def _vectors(size: int) -> bytes:
    vector = [0.0123456789 + n for n in range(1536)]
    rows = [{"object": "embedding", "index": n, "embedding": vector} for n in range(size // len(json.dumps(vector)))]
    document = {"object": "list", "model": "served", "data": rows, "usage": {"prompt_tokens": 1, "total_tokens": 2}}
    return whole(json.dumps(document).encode())


def _pictures(size: int) -> bytes:
    data = base64.b64encode(bytes(range(256)) * (size // 342)).decode()
    return whole(json.dumps({"created": 1, "data": [{"b64_json": data}], "note": SAID}).encode())


def _event(model: str, delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    document = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def _stream(pieces: Iterator[str] | list[str], name: str = "content") -> bytes:
    def delta(piece: str) -> dict[str, Any]:
        if name == "content":
            return {"content": piece}
        return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}

    events = [_event("served", delta(piece)) for piece in pieces]
    return streamed([*events, _event("served", {}, "stop"), b"data: [DONE]\n\n"])


def _words(size: int, *, has_findings: bool, envelope: int = 150) -> list[str]:
    """Return a text in pieces of a word or two, as models send them, for ``size`` bytes of events."""
    text = SAID + _text(size * 6 // (envelope + 6), has_findings=has_findings)
    return [text[at : at + 6] for at in range(0, len(text), 6)]


def _arguments(size: int) -> list[str]:
    text = '{"rows": [' + ", ".join(
        f'{{"name": "n{n}", "mail": "bob.{n}@example.org"}}' for n in range(size * 6 // 170 // 45)
    ) + "]}"  # fmt: skip
    return [text[at : at + 6] for at in range(0, len(text), 6)]


def _message_stream(size: int) -> bytes:
    """Return what a target says that speaks the Messages API."""
    message = {"id": "m", "role": "assistant", "model": "served", "content": [], "usage": {"input_tokens": 1}}
    deltas = [{"type": "text_delta", "text": piece} for piece in _words(size, has_findings=True)]
    events: list[tuple[str, dict[str, Any]]] = [
        ("message_start", {"message": message}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        *[("content_block_delta", {"index": 0, "delta": delta}) for delta in deltas],
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
        ("message_stop", {}),
    ]
    lines = [(kind, json.dumps({"type": kind, **members}, separators=(",", ":"))) for kind, members in events]
    return streamed([f"event: {kind}\ndata: {data}\n\n".encode() for kind, data in lines])


def _large_deltas(size: int, delta: int = 900_000) -> list[str]:
    return [SAID + _text(delta, has_findings=True)] * max(1, size // delta)


class Case(NamedTuple):
    """One kind of large exchange; both parts are made for a size in bytes."""

    name: str
    policy: str
    ask: Callable[[int], bytes]
    answer: Callable[[int], bytes] | None = None


def _small(_: int) -> bytes:
    return chat("large", f"{EMAIL} asks")


def _small_stream(_: int) -> bytes:
    return chat("large", f"{EMAIL} asks", stream=True)


def _embed(_: int) -> bytes:
    body = json.dumps({"model": "large", "input": EMAIL}).encode()
    return request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})


def _draw(_: int) -> bytes:
    body = json.dumps({"model": "large", "prompt": EMAIL}).encode()
    return request("POST", "/v1/images/generations", body, {"Content-Type": "application/json"})


CASES = (
    Case("request: one string", POLICY, _one_string),
    Case("request: a value in each 250 characters", POLICY, _findings),
    Case("request: renamed model", POLICY, _renamed),
    Case("request: usage asked for", BUDGETED, _fitted, lambda _: _stream(["yes"])),
    Case("request: translated", POLICY.replace("main}", "spoken}"), _findings),
    Case("request: many strings", POLICY, _many_strings),
    Case("request: many keys", POLICY, _many_keys),
    Case("request: a picture", POLICY, _picture),
    Case("request: form text", POLICY, _form),
    Case("request: batch file", POLICY, _batch),
    Case("answer: one string, restored", POLICY, _small, lambda size: _completion(SAID + _text(size, has_findings=False))),
    Case("answer: one string, redacted", ANSWERS_TOO, _small, lambda size: _completion(SAID + _text(size, has_findings=True))),
    Case("answer: one string, observed", COUNTS_ANSWERS, _small, lambda size: _completion(_text(size, has_findings=True))),
    Case("answer: many strings", ANSWERS_TOO, _small, lambda size: _completion(*[SAID + WORDS] * (size // 180))),
    Case("answer: vectors", ANSWERS_TOO, _embed, _vectors),
    Case("answer: pictures", ANSWERS_TOO, _draw, _pictures),
    Case("stream: words, restored", POLICY, _small_stream, lambda size: _stream(_words(size, has_findings=False))),
    Case("stream: words, redacted", ANSWERS_TOO, _small_stream, lambda size: _stream(_words(size, has_findings=True))),
    Case("stream: words, buffered", BUFFERS_ANSWERS, _small_stream, lambda size: _stream(_words(size, has_findings=True))),
    Case("stream: words, observed", COUNTS_ANSWERS, _small_stream, lambda size: _stream(_words(size, has_findings=True))),
    Case("stream: arguments, redacted", ANSWERS_TOO, _small_stream, lambda size: _stream(_arguments(size), "arguments")),
    Case("stream: words, translated", ANSWERS_TOO.replace("main}", "spoken}"), _small_stream, _message_stream),
    Case("stream: large deltas, restored", POLICY, _small_stream, lambda size: _stream(_large_deltas(size))),
    Case("stream: large deltas, redacted", ANSWERS_TOO, _small_stream, lambda size: _stream(_large_deltas(size))),
)  # fmt: skip


# --- how long it holds everybody else up -------------------------------------------------------------


class Held(NamedTuple):
    """What one large exchange did to the others. Seconds."""

    answer: Message
    took_s: float
    held_s: float
    """The longest that the event loop was held: late, while this process used CPU time."""
    second_s: float
    """The slowest answer the second caller got meanwhile."""
    idle_s: float
    """The same without the large exchange: what the machine itself takes."""
    asked: int


@dataclass(slots=True)
class Floor:
    """A watched sidecar, its provider's answers, and the second caller."""

    sidecar: Sidecar
    answers: Path

    def measure(self, case: Case, size: int, within_s: float = 240.0, idle_s: float = 0.5) -> Held:
        """Run a case of so many bytes beside the second caller."""
        if case.answer is not None:
            (self.answers / "large").write_bytes(case.answer(size))
        asked = case.ask(size)
        with SecondCaller(self.sidecar.data_port) as idle:
            time.sleep(idle_s)  # noqa: TID251 - what the machine itself takes; no event loop here
        with SecondCaller(self.sidecar.data_port) as second:
            began_s = time.monotonic()
            answer = self.sidecar.ask(asked, within_s)
            ended_s = time.monotonic()
            time.sleep(0.1)  # noqa: TID251 - what is done behind the answer counts as well
        held = [late[2] for late in self.stalls() if began_s <= late[0] <= ended_s + 0.1]
        return Held(answer, ended_s - began_s, max(held, default=0.0), second.slowest_s, idle.slowest_s, second.count)

    def stalls(self) -> list[tuple[float, float, float]]:
        """Return every late beat: when, how late, how long held; seconds."""
        lines = (self.sidecar.folder / "stalls").read_text().splitlines()
        return [(float(at), float(late), float(held)) for at, late, held in map(str.split, lines)]


@contextmanager
def floor(folder: Path, policy: str) -> Iterator[Floor]:
    """Run a watched sidecar under a policy."""
    answers = folder / "answers"
    answers.mkdir()
    with canned_provider(answers) as base_url:
        config = (
            f'providers: {{main: {{base_url: "{base_url}"}}, spoken: {{kind: anthropic, base_url: "{base_url}"}}}}\n'
        )
        write_files(folder, config, {"default.yaml": policy}, "max_body: 40MiB")
        with serving(folder, {"STALLS": str(folder / "stalls")}, module="tests.support.watched_sidecar") as sidecar:
            yield Floor(sidecar, answers)
