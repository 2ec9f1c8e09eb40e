"""What the simulated provider says: deterministic words, their pieces and their count.

Owns the default text, the reading of the prompt (echo, calls) and the cutting of text into the
pieces of a stream. Knows nothing of JSON shapes or HTTP.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_TEXT = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore "
    "magna aliqua ut enim ad minim veniam quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo "
    "consequat duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur"
)
_WORDS = _TEXT.split(" ")
_PIECE = re.compile(r"\s*\S+|\s+")
_MARKER = re.compile(r"\[\[sim [^\]]*\]\]\s?")
_CALL = re.compile(r"^call ([A-Za-z0-9_.-]+) (\{.*\})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the answer makes: a name and its arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was asked, as far as it decides the answer."""

    last_user: str = ""
    """Text of the last user message, fault marker removed."""
    prefill: str = ""
    """Text of a trailing assistant message."""
    tokens: int = 0
    after_tool: bool = False
    """The conversation ends with a tool's result."""


def default_text(tokens: int, voice: int = 0) -> str:
    """Return ``tokens`` words; the same for the same arguments, and different from word one for another voice."""
    count = len(_WORDS)
    words = [_WORDS[(index * (voice + 1) + 3 * voice) % count] for index in range(tokens)]
    if voice and words:
        words[0] = f"voice{voice}"
    text = " ".join(words)
    return text[:1].upper() + text[1:] + ("." if words else "")


def count_tokens(text: str) -> int:
    """Return the token count of the simulated tokenizer: about four bytes a token, at least one."""
    return max(1, (len(text) + 3) // 4) if text else 0


def answer_text(prompt: Prompt, default: str, scripted: str | None = None) -> str:
    """Return the text of the answer: scripted, echoed, or the default; a prefill that fits is continued."""
    text = scripted
    if text is None:
        text = echo_of(prompt.last_user)
    if text is None:
        text = default
    if prompt.prefill and text.startswith(prompt.prefill):
        return text[len(prompt.prefill) :]
    return text


def echo_of(asked: str) -> str | None:
    """Return what follows ``echo:`` (and one space) at the start of the prompt, or None."""
    if not asked.startswith("echo:"):
        return None
    return asked[6:] if asked[5:6] == " " else asked[5:]


def calls_of(asked: str) -> tuple[ToolCall, ...]:
    """Return the calls demanded by lines such as ``call get_weather {"city":"Paris"}``."""
    if "call " not in asked:
        return ()
    return tuple(ToolCall(name, arguments) for name, arguments in _CALL.findall(asked))


def without_marker(text: str) -> str:
    """Return the text without ``[[sim …]]``."""
    return _MARKER.sub("", text) if "[[sim " in text else text


def text_of(content: Any) -> str:
    """Return the text of a message content: a string, or a list of parts of which the text ones are joined."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def read_messages(messages: Any) -> Prompt:
    """Return the prompt in a list of role/content messages; strangers in the list are passed over."""
    last_user, prefill, size, role = "", "", 0, ""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        role = str(message.get("role", message.get("type", "")))
        text = text_of(message.get("content"))
        size += 4 + count_tokens(text)
        if role == "user":
            last_user = text
        prefill = text if role == "assistant" else ""
    after_tool = role in ("tool", "function_call_output") or _ends_with_tool_result(messages)
    return Prompt(without_marker(last_user), prefill, size + 3, after_tool)


def _ends_with_tool_result(messages: Any) -> bool:
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return False
    content = messages[-1].get("content")
    return isinstance(content, list) and any(isinstance(p, dict) and p.get("type") == "tool_result" for p in content)


def cut_pieces(text: str, chars: int, utf16: bool) -> list[str]:
    """Return the pieces a stream sends; joined they are the text again (surrogate halves included)."""
    if utf16:
        units = text.encode("utf-16-le", "surrogatepass")
        step = 2 * max(1, chars)
        return [units[i : i + step].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), step)]
    if chars:
        return [text[i : i + chars] for i in range(0, len(text), chars)]
    return _PIECE.findall(text)


def sample_of(schema: Any, name: str = "value") -> Any:
    """Return the simplest value a JSON schema allows, the same each time."""
    if not isinstance(schema, dict):
        return {}
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties")
        return {key: sample_of(value, key) for key, value in (properties or {}).items()}
    if kind == "array":
        return [sample_of(schema.get("items"), name)]
    simple: dict[Any, Any] = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
    return simple.get(kind, f"simulated {name}")
