"""Faults by name: their small language, and which one the next request gets.

Owns the catalogue of fault names with their arguments, and the board that chooses among script,
header, prompt marker, model, provider and global settings. What a fault does to an answer is in
``misbehaviour``; how it leaves the socket is in ``delivery``.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.simulator.settings import SPEECH_KEYS, BadSetting, did_you_mean, parse_duration, parse_flag, parse_size

MARKER = re.compile(rb"\[\[sim ([^\]]*)\]\]")
MODEL_PREFIX = "sim/"

CATALOGUE: dict[str, tuple[str, frozenset[str]]] = {
    name: (what, frozenset(args.split()))
    for name, what, args in (
        ("ok", "no fault; carries speech settings such as tokens=60,rate=50", ""),
        ("refuse", "reset this connection and close the listener for a while", "for"),
        ("silence", "take the request and never answer (or close after a while)", "for"),
        ("status", "answer with an error status; also written 429, 503, …",
         "status retry_after retry_after_ms retry_after_date code type message param echo_key retry html"),
        ("stall", "stop sending, keep the connection open", "after partial for"),
        ("reset", "end the connection with a TCP reset", "after partial"),
        ("cut", "end the connection with a FIN before the framing is complete", "after partial"),
        ("clean_end", "end a stream cleanly without a finish mark", "after done"),
        ("no_done", "leave out data: [DONE]", ""),
        ("no_finish", "leave out the finish_reason chunk", ""),
        ("malformed", "send one broken event: kind=json, utf8, field, truncated or not_object", "after kind"),
        ("error_event", "send an SSE error event: shape=openai, vllm, openrouter or anthropic",
         "after shape code type message done status echo_key"),
        ("error_in_200", "answer 200 with an error object for a body", "status code type message param echo_key"),
        ("content_type", "send this content type; value=none leaves the header out", "value"),
        ("html", "answer 200 with a web page", ""),
        ("no_stream", "answer plain JSON to a request for a stream", ""),
        ("only_stream", "answer an event stream to a plain request", ""),
        ("encode", "content-code the answer: as=gzip, deflate, zstd; label= names another; members=2 repeats",
         "as label members"),
        ("bomb", "a gzip body that inflates to size (default 300MiB)", "size"),
        ("huge", "a plain body of size (default 300MiB)", "size"),
        ("big_event", "one SSE event of size (default 2MiB)", "size after"),
        ("endless_line", "an SSE line of size (default 64MiB) that never ends", "size"),
        ("big_head", "an answer head of count headers of size each", "count size"),
        ("close_after", "answer, promise keep-alive, then close the idle connection after a while", "delay how"),
        ("race", "answer, then end the connection as the next request on it arrives", "how"),
        ("informational", "send count answers of an interim status (default 103) first", "status count"),
        ("switch", "answer 101 Switching Protocols though nobody asked", ""),
        ("http10", "answer as HTTP/1.0 without a length; after= cuts it", "after"),
        ("redirect", "answer a redirect to another place", "status to"),
        ("early", "answer before the request body is read, then read=yes drains or read=no closes",
         "status read retry_after"),
        ("empty", "answer with no body at all", "status length"),
        ("bad_framing", "break HTTP: kind=cl_te, two_lengths, garbage, version, status, bad_chunk, extra, lf, negative",
         "kind"),
        ("drip", "send bytes at a time, every so often: of=head, body or all", "bytes every of"),
        ("no_prefill", "refuse (400) a request that ends with an assistant message", ""),
        ("trailers", "end a chunked answer with trailer fields", ""),
        ("no_request_id", "leave out x-request-id", ""),
    )
}  # fmt: skip

_COMMON = frozenset(("every_nth",))


@dataclass(frozen=True, slots=True)
class Fault:
    """One named fault with its arguments still as text; the typed readers name what was wrong."""

    name: str = "ok"
    args: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    """The text it was read from, as the journal shows it."""

    def text(self, key: str, default: str = "") -> str:
        """Return an argument as it was written."""
        return self.args.get(key, default)

    def count(self, key: str, default: int) -> int:
        """Return an argument as a whole number."""
        value = self.args.get(key)
        return default if value is None else _whole(key, value)

    def seconds(self, key: str, default: float) -> float:
        """Return an argument as seconds."""
        value = self.args.get(key)
        return default if value is None else parse_duration(value)

    def size(self, key: str, default: int) -> int:
        """Return an argument as bytes."""
        value = self.args.get(key)
        return default if value is None else parse_size(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return an argument as a truth value."""
        value = self.args.get(key)
        return default if value is None else parse_flag(value)

    @property
    def speech(self) -> dict[str, str]:
        """The arguments that set how the answer is spoken."""
        return {
            key: value for key, value in self.args.items() if key in SPEECH_KEYS and key not in CATALOGUE[self.name][1]
        }


NO_FAULT = Fault()


def parse_fault(text: str) -> Fault:
    """Read ``name`` or ``name:key=value,key=value``; a bare status number means ``status``.

    Raises:
        BadSetting: Unknown name, unknown argument or a value of the wrong kind, with a suggestion.
    """
    text = text.strip()
    if not text:
        return NO_FAULT
    name, _, rest = text.partition(":")
    name = name.strip()
    args: dict[str, str] = {}
    if name.isdigit():
        args["status"], name = name, "status"
    if name not in CATALOGUE:
        raise BadSetting(f"unknown fault {name!r}{did_you_mean(name, set(CATALOGUE))}")
    allowed = CATALOGUE[name][1] | SPEECH_KEYS | _COMMON
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = part.partition("=")
        if not equals or key not in allowed:
            raise BadSetting(f"fault {name!r}: unknown argument {part!r}{did_you_mean(key, allowed)}")
        args[key] = value
    return Fault(name, args, text)


def _whole(key: str, value: str) -> int:
    if not value.isdigit():
        raise BadSetting(f"{key}: expected a whole number, got {value!r}")
    return int(value)


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the script: a fault for the next request that matches.

    Empty matches take anything. ``content`` is said instead of the default text, ``body`` (with
    ``status`` and ``headers``) replaces the whole answer.
    """

    fault: Fault = NO_FAULT
    times: int = 1
    path: str = ""
    """Suffix of the path, for example ``/chat/completions``."""
    model: str = ""
    content: str | None = None
    body: bytes | None = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    def takes(self, path: str, model: str) -> bool:
        """Return whether this step is for such a request."""
        return path.endswith(self.path) and (not self.model or self.model == model)


def parse_step(data: Any) -> Step:
    """Read a step from its JSON form: a fault text, or an object with the fields of ``Step``.

    Raises:
        BadSetting: Anything else, or an unknown field.
    """
    if isinstance(data, str):
        return Step(parse_fault(data))
    if not isinstance(data, dict):
        raise BadSetting(f"expected a fault text or an object, got {type(data).__name__}")
    known = frozenset(("fault", "times", "path", "model", "content", "body", "status", "headers"))
    for key in data:
        if key not in known:
            raise BadSetting(f"unknown script field {key!r}{did_you_mean(key, known)}")
    body = data.get("body")
    return Step(
        fault=parse_fault(str(data.get("fault", ""))),
        times=int(data.get("times", 1)),
        path=str(data.get("path", "")),
        model=str(data.get("model", "")),
        content=data.get("content"),
        body=body.encode("utf-8") if isinstance(body, str) else None,
        status=int(data.get("status", 200)),
        headers=tuple((str(k), str(v)) for k, v in dict(data.get("headers", {})).items()),
    )


class FaultBoard:
    """What goes wrong next. Precedence: script, header, prompt marker, ``sim/`` model, model, provider, global."""

    def __init__(self, everyone: Fault = NO_FAULT) -> None:
        self._script: deque[tuple[Step, int]] = deque()
        self._start = everyone
        self._seen = 0
        self.everyone = everyone
        self.by_model: dict[str, Fault] = {}
        self.by_provider: dict[str, Fault] = {}

    @property
    def script(self) -> list[Step]:
        """The steps still to come."""
        return [step for step, _ in self._script]

    def add(self, *steps: Step) -> None:
        """Append steps to the script."""
        self._script.extend((step, step.times) for step in steps)

    def clear_script(self) -> None:
        """Forget the steps still to come."""
        self._script.clear()

    def reset(self) -> None:
        """Return to what was set at start."""
        self._script.clear()
        self.by_model.clear()
        self.by_provider.clear()
        self.everyone = self._start

    def take_step(self, path: str, model: str) -> Step | None:
        """Return the first step for such a request and use it up."""
        for index, (step, left) in enumerate(self._script):
            if step.takes(path, model):
                if left > 1:
                    self._script[index] = (step, left - 1)
                else:
                    del self._script[index]
                return step
        return None

    def may_be_early(self) -> bool:
        """Return whether a fault that acts before the body is read may be waiting."""
        if self.everyone.name == "early":
            return True
        return bool(self._script) and self._script[0][0].fault.name == "early"

    def choose(self, header: str | None, body: bytes, model: str, provider: str) -> Fault:
        """Return the fault for a request no script step took.

        Raises:
            BadSetting: The header, the marker or the model name holds no valid fault.
        """
        if header:
            return parse_fault(header)
        if b"[[sim " in body and (marker := MARKER.search(body)):
            return parse_fault(marker[1].decode("utf-8", "replace"))
        if model.startswith(MODEL_PREFIX):
            return parse_fault(model[len(MODEL_PREFIX) :])
        fault = self.by_model.get(model) or self.by_provider.get(provider) or self.everyone
        return self._thinned(fault)

    def _thinned(self, fault: Fault) -> Fault:
        nth = fault.count("every_nth", 1)
        if nth <= 1:
            return fault
        self._seen += 1
        return fault if self._seen % nth == 0 else NO_FAULT
