"""Which endpoint answers which path, and who may ask.

Owns the table of endpoints, the prefixes different providers put before them, and the checks every
request passes first (credential, JSON, model). Knows nothing of sockets or faults.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hmac import compare_digest
from urllib.parse import parse_qsl, unquote

import orjson

from proxy.simulator.answers import Answer, Asked, anthropic_error, error_answer
from proxy.simulator.anthropic import answer_count_tokens, answer_messages
from proxy.simulator.chat import answer_chat, answer_completion
from proxy.simulator.files import FileStore
from proxy.simulator.forms import read_form
from proxy.simulator.media import (
    answer_embeddings,
    answer_images,
    answer_moderations,
    answer_speech,
    answer_transcription,
    model_list,
    no_such_model,
    one_model,
)  # fmt: skip
from proxy.simulator.responses import answer_responses
from proxy.simulator.settings import Settings
from proxy.simulator.text import Prompt, read_messages, text_of, without_marker

Endpoint = Callable[[Asked], Answer]

_POSTS: dict[str, Endpoint] = {
    "/chat/completions": answer_chat,
    "/completions": answer_completion,
    "/responses": answer_responses,
    "/embeddings": answer_embeddings,
    "/moderations": answer_moderations,
    "/images/generations": answer_images,
    "/images/edits": answer_images,
    "/images/variations": answer_images,
    "/audio/speech": answer_speech,
    "/audio/transcriptions": answer_transcription,
    "/audio/translations": answer_transcription,
    "/messages": answer_messages,
    "/messages/count_tokens": answer_count_tokens,
}
_FORMS = frozenset(
    ("/images/edits", "/images/variations", "/audio/transcriptions", "/audio/translations", "/files")
)  # fmt: skip
_OPENAI = re.compile(r"(?:/(?P<provider>[\w.-]+))?(?:/openai|/api)*/v1(?:beta/openai)?(?P<path>/.*)?")
_AZURE = re.compile(r"(?:/(?P<provider>(?!openai/)[\w.-]+))?/openai/deployments/(?P<deployment>[^/]+)(?P<path>/.*)")


class Place:
    """Where a path leads: provider prefix, path after ``/v1``, Azure deployment."""

    __slots__ = ("deployment", "path", "provider")

    def __init__(self, provider: str, path: str, deployment: str = "") -> None:
        self.provider = provider
        self.path = path
        self.deployment = deployment


def find_place(path: str) -> Place | None:
    """Return where a raw path leads, or None when it is below no provider's API."""
    if path.startswith("/v1/"):
        return Place("", path[3:])
    if match := _AZURE.fullmatch(path):
        return Place(match["provider"] or "", match["path"], unquote(match["deployment"]))
    if match := _OPENAI.fullmatch(path):
        provider = match["provider"] or ""
        return Place("" if provider in ("openai", "api") else provider, match["path"] or "/")
    return None


def read_query(target: str) -> dict[str, str]:
    """Return the query parameters of a raw target."""
    _, _, query = target.partition("?")
    return dict(parse_qsl(query, keep_blank_values=True)) if query else {}


def read_body(place: Place, method: str, content_type: str, body: bytes) -> tuple[dict[str, object], str]:
    """Return the JSON object of a request and what is wrong with it (empty when nothing is)."""
    if place.path in _FORMS and content_type.lower().startswith("multipart/form-data"):
        form = read_form(content_type, body) or {}
        return ({"model": form["model"].content.decode("utf-8", "replace")} if "model" in form else {}), ""
    is_known = place.path in _POSTS and method == "POST"
    if not body:
        return {}, "We could not parse the JSON body of your request: the body is empty." if is_known else ""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        what = f"We could not parse the JSON body of your request. ({problem})"
        return {}, what if is_known else ""
    if not isinstance(data, dict):
        return {}, "The JSON body of your request is not an object." if is_known else ""
    return data, ""


def read_prompt(data: dict[str, object]) -> Prompt:
    """Return what was asked, wherever the endpoint keeps it (``messages``, ``input`` or ``prompt``)."""
    messages = data.get("messages")
    if messages is None and isinstance(data.get("input"), list):
        messages = data["input"]
    if messages is not None:
        return read_messages(messages)
    given = data.get("input", data.get("prompt", ""))
    text = without_marker(given if isinstance(given, str) else text_of(given))
    return Prompt(last_user=text, tokens=max(1, len(text) // 4))


def check_credential(settings: Settings, headers: dict[str, str], is_anthropic: bool, number: int) -> Answer | None:
    """Return the refusal of a wrong or missing credential, or None when it is right or none is needed."""
    if not settings.api_keys:
        return None
    given = headers.get("api-key") or headers.get("x-api-key") or ""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if not given and scheme.lower() == "bearer":
        given = bearer.strip()
    if any(compare_digest(given.encode("latin-1"), key.encode("utf-8")) for key in settings.api_keys):
        return None
    if is_anthropic:
        return anthropic_error(401, "authentication_error", "invalid x-api-key", f"req_sim{number:08d}")
    if not given:
        return error_answer(401, "You didn't provide an API key.", code="missing_api_key")
    shown = f"{given[:3]}…{given[-4:]}" if len(given) > 12 else "…"
    return error_answer(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")


def answer_question(asked: Asked, settings: Settings, files: FileStore) -> Answer:
    """Return the faultless answer to a question below ``/v1``."""
    path, method = asked.path, asked.method
    if method == "OPTIONS":
        allow = [("access-control-allow-origin", "*"), ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
                 ("access-control-allow-headers", "*")]  # fmt: skip
        return Answer(status=204, headers=allow, content_type="")
    endpoint = _POSTS.get(path)
    if endpoint is not None:
        if method != "POST":
            return not_allowed(method, path)
        model = asked.data.get("model")
        if settings.strict_models and isinstance(model, str) and model not in settings.models:
            return no_such_model(model)
        return endpoint(asked)
    if path == "/models" or path.startswith("/models/"):
        if method not in ("GET", "HEAD"):
            return not_allowed(method, path)
        return model_list(settings.models) if path == "/models" else one_model(settings.models, unquote(path[8:]))
    if path.split("/")[1] in ("files", "batches"):
        return files.answer(asked) or not_allowed(method, path)
    return no_such_path(method, path)


def not_allowed(method: str, path: str) -> Answer:
    """Return the answer to the wrong method on a known path."""
    return error_answer(405, f"Not allowed to {method} on {path}.", code="method_not_supported")


def no_such_path(method: str, path: str) -> Answer:
    """Return the answer to a path nobody serves."""
    return error_answer(404, f"Invalid URL ({method} {path})", code="unknown_url")
