"""Questions and answers before they become bytes on a wire.

Owns the request as an endpoint sees it, the answer as a value, the error shapes, and the writing
of server-sent events. Knows nothing of sockets, faults or time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import orjson

from proxy.simulator.settings import Speech
from proxy.simulator.text import Prompt

CREATED = 1_760_000_000
"""Every ``created`` field: the same each run, so that answers can be compared whole."""

Headers = list[tuple[str, str]]


class Kind(IntEnum):
    """The part an event plays in a stream; faults say where they strike in these words."""

    PRELUDE = 0
    CONTENT = 1
    FINISH = 2
    USAGE = 3
    DONE = 4
    OTHER = 5


class Event(NamedTuple):
    """One server-sent event; ``is_raw`` data goes out as it is, without ``data:`` or a blank line."""

    data: bytes
    kind: Kind = Kind.CONTENT
    name: str = ""
    is_raw: bool = False


DONE = Event(b"[DONE]", Kind.DONE)


@dataclass(slots=True)
class Answer:
    """A whole answer: either ``body`` or ``events``. Framing headers are added when it is delivered."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    content_type: str = "application/json"
    """Empty leaves the header out."""
    events: list[Event] | None = None

    def first_content(self) -> int:
        """Return the index of the first content event (or the number of events when there is none)."""
        events = self.events or []
        return next((i for i, event in enumerate(events) if event.kind is Kind.CONTENT), len(events))


@dataclass(slots=True)
class Asked:
    """One request as an endpoint sees it."""

    number: int
    method: str
    path: str
    """Without the prefix up to ``/v1`` and without the query."""
    query: dict[str, str]
    headers: dict[str, str]
    """Lower-case names; the last of repeated ones."""
    body: bytes
    data: dict[str, Any]
    """The parsed JSON object, empty when the body is none."""
    speech: Speech
    prompt: Prompt = field(default_factory=Prompt)
    scripted: str | None = None
    """Text the script wants said."""
    is_azure: bool = False
    billed: tuple[int, int] = (0, 0)
    """Tokens in and out that the answer says it cost; written down by whoever counts them."""

    @property
    def model(self) -> str:
        """The model name to report: the one asked for, unless the speech says another served."""
        if self.speech.served:
            return self.speech.served
        model = self.data.get("model")
        return model if isinstance(model, str) else "gpt-4o-mini"

    @property
    def wants_stream(self) -> bool:
        """Whether the request asked for events."""
        return self.data.get("stream") is True

    def new_id(self, prefix: str) -> str:
        """Return an id that is unique within this run and the same in every run."""
        return f"{prefix}sim{self.number:08d}"


def as_object(value: Any, default: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the value when it is a JSON object, else the default (an empty one)."""
    return value if isinstance(value, dict) else default or {}


def json_answer(data: Any, status: int = 200) -> Answer:
    """Return a JSON answer."""
    return Answer(status=status, body=orjson.dumps(data))


def error_answer(status: int, message: str, kind: str = "invalid_request_error", code: str | None = None,
                 param: str | None = None) -> Answer:  # fmt: skip
    """Return an error in the OpenAI shape."""
    return json_answer({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def anthropic_error(status: int, kind: str, message: str, request_id: str) -> Answer:
    """Return an error in the Anthropic shape."""
    return json_answer({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}, status)


def json_string(text: str) -> bytes:
    """Return the JSON form of a text, lone surrogates (which orjson refuses) included."""
    try:
        return orjson.dumps(text)
    except TypeError:
        return json.dumps(text).encode("ascii")


def write_events(events: list[Event], speech: Speech) -> list[bytes]:
    """Return each event as its bytes on the wire, in the dialect of event streams ``speech`` names."""
    if speech.eol == "lf" and not (speech.comments or speech.nospace or speech.multiline or speech.fields):
        written = [
            event.data if event.is_raw
            else b"data: " + event.data + b"\n\n" if not event.name
            else b"event: " + event.name.encode() + b"\ndata: " + event.data + b"\n\n"
            for event in events
        ]  # fmt: skip
    else:
        written = [event.data if event.is_raw else _write_event(n, event, speech) for n, event in enumerate(events)]
    if written and speech.bom:
        written[0] = b"\xef\xbb\xbf" + written[0]
    if written and speech.tight_end and not events[-1].is_raw:
        written[-1] = written[-1][: -len(_EOL[speech.eol])]
    return written


_EOL = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}


def _write_event(number: int, event: Event, speech: Speech) -> bytes:
    colon = b":" if speech.nospace else b": "
    lines: list[bytes] = []
    if speech.comments:
        lines.append(b": ping %d" % number)
    if event.name:
        lines.append(b"event" + colon + event.name.encode())
    elif speech.fields:
        lines += [b"event" + colon + b"message", b"id" + colon + b"%d" % number, b"retry" + colon + b"3000"]
    data = event.data
    cut = data.find(b",") + 1 if speech.multiline and data.startswith(b"{") else 0
    lines += [b"data" + colon + part for part in (data[:cut], data[cut:]) if part]
    end = _EOL[speech.eol]
    return end.join(lines) + end + end
