"""Everything that is not talk: embeddings, moderations, images, audio and the model list.

Owns the JSON and the tiny binaries of those endpoints. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Sequence
from typing import Any

from proxy.simulator.answers import CREATED, Answer, Asked, error_answer, json_answer
from proxy.simulator.forms import read_form
from proxy.simulator.text import count_tokens, text_of

TINY_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)  # fmt: skip
_MP3_HEAD = base64.b64decode("SUQzBAAAAAAAI1RTU0UAAAAPAAADTGF2ZjU4LjI5LjEwMAAA")
_AUDIO_TYPES = {"mp3": "audio/mpeg", "opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac",
                "wav": "audio/wav", "pcm": "audio/pcm"}  # fmt: skip
_DIMENSIONS = 64


def answer_embeddings(asked: Asked) -> Answer:
    """Answer ``POST /embeddings``: vectors are made from a digest of the text, so equal texts have equal vectors."""
    given = asked.data.get("input")
    if given is None or not given:
        return error_answer(400, "'$.input' is invalid. Please check the API reference.", param="input")
    texts = given if isinstance(given, list) and not (given and isinstance(given[0], int)) else [given]
    dimensions = asked.data.get("dimensions")
    size = dimensions if isinstance(dimensions, int) and 0 < dimensions <= 4096 else _DIMENSIONS
    is_base64 = asked.data.get("encoding_format") == "base64"
    rows: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        vector = vector_of(str(text), size)
        shown: Any = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if is_base64 else vector
        rows.append({"object": "embedding", "index": index, "embedding": shown})
    tokens = sum(count_tokens(str(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_answer({"object": "list", "data": rows, "model": asked.model, "usage": usage})


def vector_of(text: str, dimensions: int) -> list[float]:
    """Return a vector of length 1, exact in 32 bits, decided by the text alone."""
    raw = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    values = [value / 32768 - 1.0 for value in struct.unpack(f"<{dimensions}H", raw)]
    norm = sum(value * value for value in values) ** 0.5 or 1.0
    packed = struct.pack(f"<{dimensions}f", *(value / norm for value in values))
    return list(struct.unpack(f"<{dimensions}f", packed))


def answer_moderations(asked: Asked) -> Answer:
    """Answer ``POST /moderations``: nothing is flagged but text that contains ``flag me``."""
    given = asked.data.get("input", "")
    texts = given if isinstance(given, list) and all(isinstance(item, str) for item in given) else [text_of(given)]
    names = ("harassment", "hate", "self-harm", "sexual", "violence")
    results = []
    for text in texts:
        flagged = "flag me" in text
        results.append({
            "flagged": flagged,
            "categories": {name: flagged and name == "violence" for name in names},
            "category_scores": {name: 0.99 if flagged and name == "violence" else 0.00001 for name in names},
            "category_applied_input_types": {name: ["text"] for name in names},
        })  # fmt: skip
    return json_answer({"id": asked.new_id("modr-"), "model": "omni-moderation-latest", "results": results})


def answer_images(asked: Asked) -> Answer:
    """Answer ``POST /images/generations``, ``/images/edits`` and ``/images/variations`` with one-pixel pictures."""
    n = asked.data.get("n")
    count = n if isinstance(n, int) and 1 <= n <= 10 else 1
    usage = {"input_tokens": 5, "output_tokens": 10, "total_tokens": 15,
             "input_tokens_details": {"text_tokens": 5, "image_tokens": 0}}  # fmt: skip
    return json_answer({"created": CREATED, "data": [{"b64_json": TINY_PNG}] * count, "usage": usage})


def answer_speech(asked: Asked) -> Answer:
    """Answer ``POST /audio/speech`` with bytes that begin like the format asked for and grow with the text."""
    wanted = str(asked.data.get("response_format", "mp3"))
    text = str(asked.data.get("input", ""))
    noise = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(256 + 32 * len(text))
    return Answer(body=_MP3_HEAD + noise, content_type=_AUDIO_TYPES.get(wanted, "application/octet-stream"))


def answer_transcription(asked: Asked) -> Answer:
    """Answer ``POST /audio/transcriptions`` and ``/audio/translations``: says what was in ``prompt``, else the size."""
    form = read_form(asked.headers.get("content-type", ""), asked.body)
    if form is None or "file" not in form:
        return error_answer(400, "Missing required parameter: 'file'.", code="missing_required_parameter", param="file")
    prompt = form["prompt"].content.decode("utf-8", "replace") if "prompt" in form else ""
    text = prompt or f"A recording of {len(form['file'].content)} bytes."
    wanted = form["response_format"].content.decode("latin-1") if "response_format" in form else "json"
    if wanted in ("text", "srt", "vtt"):
        return Answer(body=text.encode() + b"\n", content_type="text/plain; charset=utf-8")
    return json_answer({"text": text, "usage": {"type": "duration", "seconds": 1}})


def model_list(models: Sequence[str]) -> Answer:
    """Answer ``GET /models``."""
    return json_answer({"object": "list", "data": [_model(name) for name in models]})


def one_model(models: Sequence[str], name: str) -> Answer:
    """Answer ``GET /models/{name}``."""
    return json_answer(_model(name)) if name in models else no_such_model(name)


def no_such_model(name: str) -> Answer:
    """Return the answer to a request for a model nobody has."""
    return error_answer(404, f"The model `{name}` does not exist or you do not have access to it.",
                        code="model_not_found", param="model")  # fmt: skip


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulated"}
