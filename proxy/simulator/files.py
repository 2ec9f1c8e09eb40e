"""Uploaded files and batches, kept in memory while there is room.

Owns the store and the JSON of ``/files`` and ``/batches``. Knows nothing of HTTP framing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proxy.simulator.answers import CREATED, Answer, Asked, error_answer, json_answer
from proxy.simulator.forms import read_form

_MAX_STORED_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Stored:
    shown: dict[str, Any]
    content: bytes
    content_type: str


class FileStore:
    """Files by id; the oldest go when all together pass 256 MiB. Batches by id."""

    def __init__(self) -> None:
        self._files: dict[str, _Stored] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    def reset(self) -> None:
        """Forget everything."""
        self._files.clear()
        self._batches.clear()

    def answer(self, asked: Asked) -> Answer | None:
        """Answer a request below ``/files`` or ``/batches``; None for a method it does not know."""
        collection, _, rest = asked.path.lstrip("/").partition("/")
        if collection == "files":
            return self._answer_files(asked, rest)
        return self._answer_batches(asked, rest)

    def _answer_files(self, asked: Asked, rest: str) -> Answer | None:
        if not rest:
            if asked.method == "POST":
                return self._upload(asked)
            return _listed([s.shown for s in self._files.values()]) if asked.method == "GET" else None
        file_id, _, leaf = rest.partition("/")
        stored = self._files.get(file_id)
        if stored is None:
            return error_answer(404, f"No such File object: {file_id}", param="id")
        if asked.method == "DELETE" and not leaf:
            del self._files[file_id]
            return json_answer({"id": file_id, "object": "file", "deleted": True})
        if asked.method != "GET":
            return None
        if leaf == "content":
            return Answer(body=stored.content, content_type=stored.content_type or "application/octet-stream")
        return json_answer(stored.shown)

    def _upload(self, asked: Asked) -> Answer:
        form = read_form(asked.headers.get("content-type", ""), asked.body)
        if form is None or "file" not in form:
            return error_answer(400, "'file' is a required property", param="file")
        field = form["file"]
        purpose = form["purpose"].content.decode("utf-8", "replace") if "purpose" in form else "user_data"
        file_id = asked.new_id("file-")
        shown: dict[str, Any] = {
            "id": file_id, "object": "file", "bytes": len(field.content), "created_at": CREATED,
            "filename": field.filename, "purpose": purpose, "status": "processed", "expires_at": None,
        }  # fmt: skip
        self._files[file_id] = _Stored(shown, field.content, field.content_type)
        while len(self._files) > 1 and sum(len(s.content) for s in self._files.values()) > _MAX_STORED_BYTES:
            del self._files[next(iter(self._files))]
        return json_answer(shown)

    def _answer_batches(self, asked: Asked, rest: str) -> Answer | None:
        if not rest:
            if asked.method == "POST":
                return self._create_batch(asked)
            return _listed(list(self._batches.values())) if asked.method == "GET" else None
        batch_id, _, leaf = rest.partition("/")
        batch = self._batches.get(batch_id)
        if batch is None:
            return error_answer(404, f"No batch found with id '{batch_id}'.", param="id")
        if asked.method == "POST" and leaf == "cancel":
            batch["status"] = "cancelling"
            return json_answer(batch)
        return json_answer(batch) if asked.method == "GET" and not leaf else None

    def _create_batch(self, asked: Asked) -> Answer:
        for needed in ("input_file_id", "endpoint", "completion_window"):
            if needed not in asked.data:
                return error_answer(400, f"Missing required parameter: '{needed}'.",
                                    code="missing_required_parameter", param=needed)  # fmt: skip
        batch_id = asked.new_id("batch_")
        self._batches[batch_id] = {
            "id": batch_id, "object": "batch", "endpoint": asked.data["endpoint"], "errors": None,
            "input_file_id": asked.data["input_file_id"], "completion_window": asked.data["completion_window"],
            "status": "validating", "output_file_id": None, "error_file_id": None, "created_at": CREATED,
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": asked.data.get("metadata"),
        }  # fmt: skip
        return json_answer(self._batches[batch_id])


def _listed(items: list[dict[str, Any]]) -> Answer:
    ends = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return json_answer({"object": "list", "data": items, "first_id": ends[0], "last_id": ends[1], "has_more": False})
