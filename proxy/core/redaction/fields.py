"""What the members of OpenAI-shaped requests are, as far as redaction must know.

Tables, and what follows from them alone: which strings are names of a protocol rather than words of a person, which are bytes in disguise, where
free data begins. Anything not listed is read.
"""

from __future__ import annotations

import re
from functools import lru_cache

from proxy.core.redaction.detect.engine import compile_search
from proxy.core.redaction.detect.gate import HIDING

CONTENT = frozenset({
    "arguments", "content", "description", "input", "input_text", "instructions", "output", "prompt", "query",
    "reasoning", "reasoning_content", "refusal", "stop", "suffix", "summary", "system", "text", "thinking", "title",
})  # fmt: skip
"""Members whose name says nothing about the value, so it is no label."""

ENUM_WORDS = frozenset({
    "array", "assistant", "auto", "boolean", "completed", "developer", "ephemeral", "file", "float", "function",
    "function_call", "function_call_output", "high", "image_url", "in_progress", "input_audio", "input_file",
    "input_image", "input_text", "integer", "json_object", "json_schema", "low", "medium", "message", "minimal", "none",
    "null", "number", "object", "output_text", "reasoning", "refusal", "required", "string", "summary_text", "system",
    "text", "tool", "tool_result", "tool_use", "user",
})  # fmt: skip
"""Words of the protocol; a string that is exactly one of them is never read."""

ENUMS = frozenset({
    "detail", "effort", "encoding_format", "finish_reason", "format", "mode", "object", "quality", "reasoning_effort",
    "response_format", "role", "service_tier", "size", "status", "tool_choice", "truncation", "type", "verbosity",
    "voice",
})  # fmt: skip
ENUM_VALUE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}\Z")
"""What a value of ``ENUMS`` looks like; anything else under these names is read."""

IDS = frozenset({
    "approval_request_id", "call_id", "container", "container_id", "conversation", "file_id", "id", "item_id",
    "previous_response_id", "response_id", "tool_call_id", "tool_use_id", "vector_store_id",
})  # fmt: skip
ID_VALUE = re.compile(r"[a-z]{2,12}[_-](?=[0-9_-]*[A-Za-z])[A-Za-z0-9_-]{8,}\Z")
"""What an id made by a provider looks like; anything else under these names is read."""

NAMES = ENUMS | IDS | {"model"}


def is_name(label: str, text: str) -> bool:
    """Tell whether a string under one of ``NAMES`` is what it should be there; if not, it is read."""
    if label in IDS:
        return ID_VALUE.match(text) is not None
    return label == "model" or ENUM_VALUE.match(text) is not None


OPAQUE = frozenset({"b64_json", "data", "encrypted_content", "file_data", "image", "partial_image_b64", "signature"})
"""Members whose long values are bytes in disguise, when they look it."""

OPAQUE_TYPES = frozenset({"document", "file", "image", "image_url", "input_audio", "input_file", "input_image"})
"""Parts that stand for something that cannot be read here."""


_SECOND_LOOK = compile_search((rb"\\[u/]", *HIDING))


def needs_second_look(body: bytes) -> bool:
    """Return False when a body whose gate is silent holds no escape that could hide a letter and nothing unreadable."""
    return _SECOND_LOOK(body, 0)[0] >= 0


FREE = frozenset({
    "args", "arguments", "attributes", "default", "enum", "examples", "extra_body", "filters", "kwargs", "metadata",
    "parameters", "properties", "schema", "variables",
})  # fmt: skip
"""Members below which names are the application's own: no ids, no enumerations, and numbers are read too."""

TOP_FIRST = ("user", "safety_identifier", "prompt_cache_key", "instructions", "system", "tools", "functions")
"""Read before the history, so that their placeholders keep their numbers when the history grows."""
TOP_HISTORY = ("messages", "input", "prompt")
TOP_ORDER = dict.fromkeys((*TOP_FIRST, *TOP_HISTORY))
TOP_KNOWN = frozenset({
    *TOP_FIRST, *TOP_HISTORY, "audio", "background", "best_of", "cache_control", "conversation", "dimensions", "echo",
    "encoding_format", "frequency_penalty", "function_call", "include", "input", "logit_bias", "logprobs",
    "max_completion_tokens", "max_output_tokens", "max_tokens", "max_tool_calls", "modalities", "model", "models", "n",
    "parallel_tool_calls", "prediction", "presence_penalty", "previous_response_id", "reasoning", "reasoning_effort",
    "response_format", "seed", "service_tier", "size", "stop", "stop_sequences", "store", "stream", "stream_options",
    "suffix", "temperature", "text", "thinking", "tool_choice", "tool_resources", "top_k", "top_logprobs", "top_p",
    "truncation", "verbosity", "voice", "web_search_options",
})  # fmt: skip
"""Members of a request that follow the protocol; any other is the application's own, free from the top."""

PERSONS = frozenset({"user", "safety_identifier", "name"})
"""Members that say who somebody is; a number is read there too."""

NUMBERED = CONTENT | PERSONS
"""Members under which a number is read, too."""

MEMBERS = CONTENT | ENUM_WORDS | ENUMS | IDS | OPAQUE | FREE | TOP_KNOWN
"""Names that need no reading themselves."""


@lru_cache(maxsize=256)
def order_of(keys: tuple[str, ...]) -> tuple[tuple[str, str, bool, bool], ...]:
    """Return a request's members, all of the protocol, in the order they are read.

    Each with its label, and whether it is read when it is short, and when it is a number.
    """
    first = [key for key in TOP_ORDER if key in keys]
    return (
        *((key, "", True, key in NUMBERED) for key in first),
        *((key, key, key != "model", key in NUMBERED) for key in keys if key not in TOP_ORDER),
    )
