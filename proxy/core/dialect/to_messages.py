"""A chat request as Anthropic's Messages API asks for it.

Owns the mapping of the request and the list of what has no counterpart there. What would change the meaning of the
answer is never dropped: such a request cannot be translated. Does not know answers (``from_messages``) nor transport.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

DEFAULT_MAX_TOKENS: Final = 4096
"""The Messages API demands a limit; this is sent where the caller gave none."""

_SAME: Final = ("temperature", "top_p", "stream")
_READ: Final = frozenset({
    *_SAME, "model", "messages", "max_tokens", "max_completion_tokens", "stop", "tools", "tool_choice",
    "parallel_tool_calls", "user", "safety_identifier", "stream_options", "n", "response_format", "modalities",
})  # fmt: skip
_MEANINGFUL: Final = ("functions", "function_call", "audio", "prediction", "web_search_options")
"""What an answer would not be the same without."""


class Untranslatable(ValueError):
    """The request asks for what the Messages API does not have. The message names the field, never a value."""


class Translated(NamedTuple):
    """A request in the other dialect. ``dropped`` names the parameters left out, ``changed`` those with another value."""

    document: dict[str, Any]
    dropped: tuple[str, ...]
    changed: tuple[str, ...]


def to_messages(chat: dict[str, Any], model: str) -> Translated:
    """Translate a chat completion request.

    Raises:
        Untranslatable: It holds content or asks for a form of answer that has no counterpart.
    """
    _check_form(chat)
    changed: list[str] = []
    out: dict[str, Any] = {"model": model, "max_tokens": _max_tokens(chat, changed)}
    system, messages = _messages(chat.get("messages"))
    if system:
        out["system"] = system
    out["messages"] = messages
    for key in _SAME:
        if chat.get(key) is not None:
            out[key] = chat[key]
    if isinstance(out.get("temperature"), (int, float)) and out["temperature"] > 1:
        out["temperature"] = 1
        changed.append("temperature")
    stop = chat.get("stop")
    if stop:
        out["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    user = chat.get("safety_identifier") or chat.get("user")
    if isinstance(user, str) and user:
        out["metadata"] = {"user_id": user}
    _put_tools(chat, out)
    dropped = tuple(
        sorted(key for key, value in chat.items() if key not in _READ and value not in (None, [], {}, False))
    )
    return Translated(out, dropped, tuple(changed))


def _check_form(chat: dict[str, Any]) -> None:
    for key in _MEANINGFUL:
        if chat.get(key):
            raise Untranslatable(key)
    if chat.get("n") not in (None, 1):
        raise Untranslatable("n")
    if chat.get("logprobs"):
        raise Untranslatable("logprobs")
    wanted = chat.get("response_format")
    if wanted is not None and not (isinstance(wanted, dict) and wanted.get("type") == "text"):
        raise Untranslatable("response_format")
    if chat.get("modalities") not in (None, ["text"]):
        raise Untranslatable("modalities")


def _max_tokens(chat: dict[str, Any], changed: list[str]) -> int:
    limit = chat.get("max_completion_tokens") or chat.get("max_tokens")
    if type(limit) is int:
        return limit
    changed.append("max_tokens")
    return DEFAULT_MAX_TOKENS


def _messages(given: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Return the system prompt and the turns; results of tools that follow one another become one turn."""
    if not isinstance(given, list):
        raise Untranslatable("messages")
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for at, message in enumerate(given):
        if not isinstance(message, dict):
            raise Untranslatable(f"messages[{at}]")
        role, where = message.get("role"), f"messages[{at}].content"
        if role in ("system", "developer"):
            system.append(_text_only(message.get("content"), where))
        elif role == "user":
            turns.append({"role": "user", "content": _content(message.get("content"), where)})
        elif role == "assistant":
            turns.append({"role": "assistant", "content": _said(message, where)})
        elif role == "tool":
            _add_result(turns, message, where)
        else:
            raise Untranslatable(f"messages[{at}].role")
    return "\n\n".join(system), turns


def _add_result(turns: list[dict[str, Any]], message: dict[str, Any], where: str) -> None:
    result = {
        "type": "tool_result",
        "tool_use_id": message.get("tool_call_id"),
        "content": _content(message.get("content"), where),
    }
    last = turns[-1] if turns else None
    content = last["content"] if last is not None and last["role"] == "user" else None
    if isinstance(content, list) and content and content[-1].get("type") == "tool_result":
        content.append(result)
    else:
        turns.append({"role": "user", "content": [result]})


def _said(message: dict[str, Any], where: str) -> Any:
    """Return what the assistant said and which tools it called."""
    calls = message.get("tool_calls")
    content = message.get("content")
    if message.get("function_call"):
        raise Untranslatable(where.replace("content", "function_call"))
    if not calls:
        if content is None:
            content = message.get("refusal") or ""
        return _content(content, where)
    blocks: list[dict[str, Any]] = []
    if content:
        said = _content(content, where)
        blocks += [{"type": "text", "text": said}] if isinstance(said, str) else said
    return blocks + [_call(call, where) for call in calls]


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise Untranslatable(where.replace("content", "tool_calls"))
    try:
        given = orjson.loads(function.get("arguments") or "{}")
    except (orjson.JSONDecodeError, TypeError):
        raise Untranslatable(where.replace("content", "tool_calls")) from None
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


def _text_only(content: Any, where: str) -> str:
    parts = _content(content, where)
    if isinstance(parts, str):
        return parts
    if any(part["type"] != "text" for part in parts):
        raise Untranslatable(where)
    return "\n".join(part["text"] for part in parts)


def _content(content: Any, where: str) -> Any:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Untranslatable(where)
    return [_part(part, f"{where}[{at}]") for at, part in enumerate(content)]


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "refusal"):
        return {"type": "text", "text": part.get(kind) or ""}
    if kind == "image_url" and isinstance(part.get("image_url"), dict):
        return {"type": "image", "source": _source(part["image_url"].get("url"), where)}
    raise Untranslatable(where)


def _source(url: Any, where: str) -> dict[str, Any]:
    if not isinstance(url, str):
        raise Untranslatable(where)
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, comma, data = url[5:].partition(",")
    media, _, coding = head.rpartition(";")
    if not comma or coding != "base64":
        raise Untranslatable(where)
    return {"type": "base64", "media_type": media.partition(";")[0], "data": data}


def _put_tools(chat: dict[str, Any], out: dict[str, Any]) -> None:
    tools = chat.get("tools")
    if not tools:
        return
    if not isinstance(tools, list):
        raise Untranslatable("tools")
    out["tools"] = [_tool(tool, at) for at, tool in enumerate(tools)]
    choice = _choice(chat.get("tool_choice"))
    if chat.get("parallel_tool_calls") is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice is not None:
        out["tool_choice"] = choice


def _tool(tool: Any, at: int) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Untranslatable(f"tools[{at}]")
    made: dict[str, Any] = {"name": function["name"]}
    if function.get("description"):
        made["description"] = function["description"]
    made["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
    return made


_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}


def _choice(choice: Any) -> dict[str, Any] | None:
    if choice is None:
        return None
    if isinstance(choice, str) and choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    function = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        return {"type": "tool", "name": function["name"]}
    raise Untranslatable("tool_choice")
