"""What each named fault does to an answer.

Owns one small function per fault: an answer and its plan in, the plan changed. Faults of the
connection itself (refuse, race, early …) are the connection's. Pure but for the wall clock that a
``retry-after`` date needs, which comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import orjson

from proxy.simulator.answers import DONE, Answer, Asked, Event, Headers, Kind, anthropic_error, error_answer
from proxy.simulator.codings import CODINGS, gzip_bomb
from proxy.simulator.delivery import Delivery, Drip, Ending, Framing, phrase_of, plain_bytes
from proxy.simulator.faults import Fault
from proxy.simulator.settings import BadSetting

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault may look at besides its arguments."""

    asked: Asked
    wall_s: float
    """Unix time."""


Reshape = Callable[[Delivery, Fault, Scene], None]


def apply_fault(plan: Delivery, fault: Fault, scene: Scene) -> None:
    """Change the plan as the fault says; faults that are not about an answer change nothing.

    Raises:
        BadSetting: An argument cannot be read.
    """
    reshape = _RESHAPES.get(fault.name)
    if reshape is not None:
        reshape(plan, fault, scene)


# ------------------------------------------------------------------ error statuses

_STATUS_WORDS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "Invalid value for 'temperature'"),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "permission_denied", "You are not allowed to use this model."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    408: ("timeout", "request_timeout", "The request took too long to arrive."),
    409: ("invalid_request_error", "conflict", "The resource was changed by another request."),
    413: ("invalid_request_error", "request_too_large", "The request is too large."),
    422: ("invalid_request_error", "unprocessable_entity", "The request cannot be processed."),
    425: ("invalid_request_error", "too_early", "The request came too early."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The server had an error while processing your request."),
    502: ("server_error", "bad_gateway", "Bad gateway."),
    503: ("server_error", "overloaded", "The engine is overloaded, please try again later."),
    504: ("server_error", "timeout", "The engine did not answer in time."),
    529: ("overloaded_error", "overloaded", "Overloaded."),
}
_ANTHROPIC_WORDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
                    504: "timeout_error", 529: "overloaded_error"}  # fmt: skip


def _status(plan: Delivery, fault: Fault, scene: Scene) -> None:
    status = fault.count("status", 500)
    plan.answer = error_of(status, fault, scene)
    plan.answer.headers = _retry_headers(fault, scene.wall_s)
    if fault.flag("html", False):
        page = f"<html><head><title>{status} {phrase_of(status)}</title></head><body>nginx</body></html>\r\n"
        plan.answer.body, plan.answer.content_type = page.encode(), "text/html"


def error_of(status: int, fault: Fault, scene: Scene) -> Answer:
    """Return the error answer of a status, in the dialect of the path asked."""
    kind, code, message = _STATUS_WORDS.get(status, ("server_error" if status >= 500 else "invalid_request_error",
                                                     None, f"Simulated error {status}."))  # fmt: skip
    message = fault.text("message", message) + _echoed_key(fault, scene)
    if scene.asked.path.startswith("/messages"):
        word = fault.text("type", _ANTHROPIC_WORDS.get(status, "api_error"))
        return anthropic_error(status, word, message, scene.asked.new_id("req_"))
    return error_answer(status, message, fault.text("type", kind), fault.text("code", code or "") or None,
                        fault.text("param") or None)  # fmt: skip


def _echoed_key(fault: Fault, scene: Scene) -> str:
    if not fault.flag("echo_key", False):
        return ""
    headers = scene.asked.headers
    given = headers.get("authorization") or headers.get("api-key") or headers.get("x-api-key") or "none"
    bare = given.rpartition(" ")[2]
    return f" You sent {given!r} from organization org-SimulatedOrg42 to https://simulated.invalid/v1?key={bare}"


def _retry_headers(fault: Fault, wall_s: float) -> Headers:
    headers: Headers = []
    if "retry_after" in fault.args:
        headers.append(("retry-after", fault.text("retry_after")))
    if "retry_after_date" in fault.args:
        headers.append(("retry-after", formatdate(wall_s + fault.seconds("retry_after_date", 0), usegmt=True)))
    if "retry_after_ms" in fault.args:
        headers.append(("retry-after-ms", fault.text("retry_after_ms")))
    if "retry" in fault.args:
        headers.append(("x-should-retry", "true" if fault.flag("retry", True) else "false"))
    return headers


def _error_in_200(plan: Delivery, fault: Fault, scene: Scene) -> None:
    plan.answer = error_of(fault.count("status", 500), fault, scene)
    plan.answer.status = 200


def _redirect(plan: Delivery, fault: Fault, _: Scene) -> None:
    where = fault.text("to", "http://127.0.0.1:9/elsewhere")
    plan.answer = Answer(status=fault.count("status", 307), headers=[("location", where)], content_type="")


def _empty(plan: Delivery, fault: Fault, _: Scene) -> None:
    status, length = fault.count("status", 200), fault.text("length", "zero")
    plan.answer = Answer(status=status, content_type="" if status in (204, 304) else "application/json")
    if status in (204, 304):
        plan.framing = Framing.NONE
    elif length == "close":
        plan.framing, plan.ending = Framing.UNTIL_CLOSE, Ending.CLOSE
    elif length == "chunked":
        plan.framing = Framing.CHUNKED


def _no_prefill(plan: Delivery, _: Fault, scene: Scene) -> None:
    if scene.asked.prompt.prefill:
        message = (
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
        plan.answer = error_of(400, Fault("status", {"message": message}), scene)


# ------------------------------------------------------------------ ways to end


def _stop_at(plan: Delivery, fault: Fault, default: str) -> int:
    where = fault.text("after", default)
    if where == "nothing":
        return -1
    if where == "head":
        return 0
    if plan.answer.events is None:
        return len(plan.answer.body) // 2 if where in (default, "prelude") else _whole("after", where)
    first = plan.answer.first_content()
    return min(len(plan.answer.events), first + (0 if where == "prelude" else _whole("after", where)))


def _whole(key: str, text: str) -> int:
    if not text.isdigit():
        raise BadSetting(f"{key}: expected nothing, head, prelude or a number, got {text!r}")
    return int(text)


def _ends_with(ending: Ending, default_after: str) -> Reshape:
    def reshape(plan: Delivery, fault: Fault, _: Scene) -> None:
        plan.stop = _stop_at(plan, fault, default_after)
        plan.partial = fault.count("partial", 0)
        plan.ending = ending
        plan.hold_s = fault.seconds("for", 0.0)

    return reshape


def _clean_end(plan: Delivery, fault: Fault, _: Scene) -> None:
    stop = max(0, _stop_at(plan, fault, "3"))
    if plan.answer.events is not None:
        plan.answer.events = plan.answer.events[:stop] + ([DONE] if fault.flag("done", False) else [])
    else:
        plan.answer.body = plan.answer.body[:stop]


def _without(kind: Kind) -> Reshape:
    def reshape(plan: Delivery, _: Fault, __: Scene) -> None:
        if plan.answer.events is not None:
            plan.answer.events = [event for event in plan.answer.events if event.kind is not kind]

    return reshape


def _http10(plan: Delivery, fault: Fault, _: Scene) -> None:
    plan.version, plan.framing, plan.ending = "HTTP/1.0", Framing.UNTIL_CLOSE, Ending.CLOSE
    if "after" in fault.args:
        plan.stop, plan.ending = _stop_at(plan, fault, "3"), Ending.CUT


# ------------------------------------------------------------------ events

_BROKEN: dict[str, bytes] = {
    "json": b'data: {"id":"chatcmpl-broken","choices":[{"index":0,"delta":{"content":"bro\n\n',
    "utf8": b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe\xc3"}}]}\n\n',
    "field": b"this is no field at all\n<html>\n\n",
    "truncated": b'data: {"choices":[{"index":0,"del\n',
    "not_object": b'data: ["surprise"]\n\n',
}


def _malformed(plan: Delivery, fault: Fault, _: Scene) -> None:
    kind = fault.text("kind", "json")
    if kind not in _BROKEN:
        raise BadSetting(f"kind: expected one of {', '.join(_BROKEN)}, got {kind!r}")
    if plan.answer.events is None:
        plan.answer.body = plan.answer.body[: len(plan.answer.body) // 2]
        return
    plan.answer.events.insert(_stop_at(plan, fault, "1"), Event(_BROKEN[kind], Kind.OTHER, is_raw=True))


def _error_event(plan: Delivery, fault: Fault, scene: Scene) -> None:
    events = plan.answer.events
    if events is None:
        _error_in_200(plan, fault, scene)
        return
    stop = max(0, _stop_at(plan, fault, "head"))
    event = _event_of_error(fault, scene)
    plan.answer.events = [*events[:stop], event, *([DONE] if fault.flag("done", False) else [])]


def _event_of_error(fault: Fault, scene: Scene) -> Event:
    path = scene.asked.path
    natural = {"/messages": "anthropic", "/responses": "responses"}.get(path, "openai")
    shape, status = fault.text("shape", natural), fault.count("status", 500)
    kind, code, words = _STATUS_WORDS.get(status, _STATUS_WORDS[500])
    kind, code = fault.text("type", kind), fault.text("code", code or "") or None
    words = fault.text("message", words) + _echoed_key(fault, scene)
    data: dict[str, Any]
    name = ""
    if shape == "vllm":
        data = {"object": "error", "message": words, "type": kind, "param": None, "code": status}
    elif shape == "openrouter":
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        data = {"id": scene.asked.new_id("gen-"), "object": "chat.completion.chunk", "model": scene.asked.model,
                "error": {"code": status, "message": words}, "choices": [choice]}  # fmt: skip
    elif shape == "anthropic":
        name, kind = "error", fault.text("type", _ANTHROPIC_WORDS.get(status, "api_error"))
        data = {"type": "error", "error": {"type": kind, "message": words}}
    elif shape == "responses":
        name = "error"
        data = {"type": "error", "code": code or "server_error", "message": words, "param": None, "sequence_number": 0}
    else:
        data = {"error": {"message": words, "type": kind, "param": None, "code": code}}
    return Event(orjson.dumps(data), Kind.OTHER, name)


def _big_event(plan: Delivery, fault: Fault, _: Scene) -> None:
    filler = b"x" * fault.size("size", 2 * _MIB)
    choice = b'{"id":"chatcmpl-big","object":"chat.completion.chunk","created":1,"model":"big","choices":[{"index":0,'
    event = Event(choice + b'"delta":{"content":"' + filler + b'"},"finish_reason":null}]}', Kind.CONTENT)
    if plan.answer.events is not None:
        plan.answer.events.insert(max(0, _stop_at(plan, fault, "1")), event)


# ------------------------------------------------------------------ bodies, heads and framing


def _content_type(plan: Delivery, fault: Fault, _: Scene) -> None:
    value = fault.text("value", "text/html; charset=utf-8")
    plan.answer.content_type = "" if value == "none" else value


def _html(plan: Delivery, _: Fault, __: Scene) -> None:
    page = b"<!doctype html><title>Sign in</title><p>Please sign in to the hotel network.</p>\n"
    plan.answer = Answer(body=page, content_type="text/html; charset=utf-8")


def _encode(plan: Delivery, fault: Fault, _: Scene) -> None:
    coding = fault.text("as", "gzip")
    if coding not in CODINGS:
        raise BadSetting(f"as: expected one of {', '.join(CODINGS)}, got {coding!r}")
    plan.code_as, plan.code_label = coding, fault.text("label", coding)
    plan.members = max(1, fault.count("members", 1))


def _bomb(plan: Delivery, fault: Fault, _: Scene) -> None:
    mebibytes = max(1, fault.size("size", 300 * _MIB) // _MIB)
    head, block, plan.suffix = gzip_bomb(mebibytes)
    plan.answer = Answer(headers=[("content-encoding", "gzip")], body=head)
    plan.repeat = (block, mebibytes)


def _huge(plan: Delivery, fault: Fault, _: Scene) -> None:
    size = fault.size("size", 300 * _MIB)
    body = b'{"id":"chatcmpl-huge","object":"chat.completion","created":1,"model":"huge","choices":[{"index":0,'
    plan.answer = Answer(body=body + b'"message":{"role":"assistant","content":"')
    plan.repeat = (b"x" * min(size, 64 * 1024), max(1, size // (64 * 1024)))
    plan.suffix = b'"},"finish_reason":"stop"}]}'


def _endless_line(plan: Delivery, fault: Fault, _: Scene) -> None:
    size = fault.size("size", 64 * _MIB)
    plan.answer = Answer(body=b"data: ", content_type="text/event-stream")
    plan.repeat = (b"x" * min(size, 64 * 1024), max(1, size // (64 * 1024)))


def _big_head(plan: Delivery, fault: Fault, _: Scene) -> None:
    value = "x" * fault.size("size", 16 * 1024)
    plan.answer.headers += [(f"x-filler-{n}", value) for n in range(fault.count("count", 4))]


def _informational(plan: Delivery, fault: Fault, _: Scene) -> None:
    status, count = fault.count("status", 103), fault.count("count", 1)
    plan.before = f"HTTP/1.1 {status} {phrase_of(status)}\r\nlink: </style.css>\r\n\r\n".encode() * count


def _switch(plan: Delivery, fault: Fault, _: Scene) -> None:
    plan.raw = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: surprise\r\n\r\n"
    plan.ending = Ending.CLOSE
    plan.answer = Answer(status=101)


def _drip(plan: Delivery, fault: Fault, _: Scene) -> None:
    of = fault.text("of", "body")
    if of not in ("head", "body", "all"):
        raise BadSetting(f"of: expected head, body or all, got {of!r}")
    plan.drip = Drip(max(1, fault.count("bytes", 1)), fault.seconds("every", 0.05), of != "body", of != "head")


def _trailers(plan: Delivery, _: Fault, __: Scene) -> None:
    plan.framing = Framing.CHUNKED
    plan.trailers = [("x-sim-trailer", "last words"), ("authorization", "Bearer sk-from-a-trailer")]


def _bad_framing(plan: Delivery, fault: Fault, _: Scene) -> None:
    kind = fault.text("kind", "cl_te")
    if kind == "extra":
        plan.after_body = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned"
        return
    if plan.answer.events is not None:
        plan.answer = Answer(body=b"{}")
    body = plan.answer.body
    whole = plain_bytes(plan, keep=True)
    head, _blank, _body = whole.partition(b"\r\n\r\n")
    without = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"content-length"))
    size = len(body)
    shapes: dict[str, bytes] = {
        "cl_te": without + b"\r\ncontent-length: %d\r\ntransfer-encoding: chunked\r\n\r\n" % size
                 + b"%x\r\n%s\r\n0\r\n\r\n" % (size, body),
        "two_lengths": without + b"\r\ncontent-length: %d\r\ncontent-length: %d\r\n\r\n" % (size, size + 1) + body,
        "garbage": b"\x16\x03\x01 this is not HTTP\r\n\r\n",
        "version": whole.replace(b"HTTP/1.1", b"HTTP/3.7", 1),
        "bad_chunk": without + b"\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n" + body + b"\r\n0\r\n\r\n",
        "lf": whole.replace(b"\r\n", b"\n"),
        "negative": without + b"\r\ncontent-length: -5\r\n\r\n" + body,
        "status": whole.replace(b" 200 ", b" 2000 ", 1),
    }  # fmt: skip
    if kind not in shapes:
        raise BadSetting(f"kind: expected extra, {', '.join(shapes)}, got {kind!r}")
    plan.raw = shapes[kind]
    plan.ending = Ending.CLOSE


_RESHAPES: dict[str, Reshape] = {
    "status": _status,
    "error_in_200": _error_in_200,
    "redirect": _redirect,
    "empty": _empty,
    "no_prefill": _no_prefill,
    "stall": _ends_with(Ending.STALL, "5"),
    "reset": _ends_with(Ending.RESET, "3"),
    "cut": _ends_with(Ending.CUT, "3"),
    "clean_end": _clean_end,
    "no_done": _without(Kind.DONE),
    "no_finish": _without(Kind.FINISH),
    "http10": _http10,
    "malformed": _malformed,
    "error_event": _error_event,
    "big_event": _big_event,
    "content_type": _content_type,
    "html": _html,
    "encode": _encode,
    "bomb": _bomb,
    "huge": _huge,
    "endless_line": _endless_line,
    "big_head": _big_head,
    "informational": _informational,
    "switch": _switch,
    "drip": _drip,
    "trailers": _trailers,
    "bad_framing": _bad_framing,
}
