"""Puts the values back into a whole answer: JSON of any shape, an error body, or plain text.

Owns the walk over an answer's strings. Does not know streams (``stream.py``) nor how placeholders look (``vault.py``).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Any

from proxy.core.dialect import EMBEDDINGS, Dialect
from proxy.core.redaction.jsonio import dumps, keeping_digits, loads
from proxy.core.redaction.lane import Treatment
from proxy.core.redaction.vault import Vault
from proxy.terms.errors import RedactionFault

JSON_KEYS = frozenset({"arguments", "partial_json"})
"""Members whose text is JSON source by contract."""


_LOGPROBS = re.compile(rb'"logprobs"\s*:\s*(?!null)\S')
_ANNOTATIONS = re.compile(rb'"annotations"\s*:\s*(?!null|\[\s*\])\S')
ANNOTATED = frozenset({"content", "text"})


class AnswerRestorer:
    """Restores whole answers of one exchange."""

    __slots__ = ("_dialect", "_vault")

    def __init__(self, vault: Vault, dialect: Dialect) -> None:
        self._vault = vault
        self._dialect = dialect

    def whole(self, body: bytes) -> bytes:
        """Return the answer with every placeholder replaced; the very same bytes when there is none.

        A body that is no JSON is restored as text; bytes that are no UTF-8 stay as they are.

        Raises:
            RedactionFault: Something in here failed; the answer must not be trusted.
        """
        return body if self._vault.is_empty or self._dialect is EMBEDDINGS else put_back(self._vault, body)


def put_back(vault: Vault, body: bytes) -> bytes:
    """Do what ``AnswerRestorer.whole`` does, where the answer is no embedding and the vault is not empty."""
    try:
        spliced = vault.splice(body, _has_company)
        if spliced is None:
            return _restored(vault, body) if may_hold_tag_bytes(body) else body
        return spliced
    except Exception as exc:
        raise RedactionFault(f"restoring an answer failed: {type(exc).__name__}") from exc


def _restored(vault: Vault, body: bytes) -> bytes:
    if body.startswith(codecs.BOM_UTF8):  # not JSON by the book; as text its values would not be escaped
        return codecs.BOM_UTF8 + _restored(vault, body[len(codecs.BOM_UTF8) :])
    try:
        document = keeping_digits(loads(body), body)
    except ValueError:
        return restore_plain(Treatment(vault), body)
    restored, changed = restore_document(Treatment(vault), document)
    return dumps(restored) if changed else body


def _has_company(body: bytes) -> bool:
    """Tell whether something stands beside the texts of an answer that has to change with them."""
    at = body.find(b'"logprobs"')
    if at >= 0 and _LOGPROBS.search(body, at) is not None:
        return True
    at = body.find(b'"annotations"')
    return at >= 0 and _ANNOTATIONS.search(body, at) is not None


def shift_annotations(annotations: list[Any], place: Callable[[int], int]) -> None:
    """Correct the offsets of annotations (citations) of a text whose length changed."""
    for annotation in annotations:
        if not isinstance(annotation, dict):
            continue
        for holder in (annotation, annotation.get("url_citation")):
            if isinstance(holder, dict):
                for name in ("start_index", "end_index"):
                    at = holder.get(name)
                    if isinstance(at, int):
                        holder[name] = place(at)


def may_hold_tag_bytes(data: bytes) -> bool:
    """Tell cheaply whether JSON text could hold a placeholder in any of its strings; false alarms only cost time.

    A bracket with a brace, another bracket's end or a line break behind it opens no placeholder, and an escape that
    is a line break's spells none.
    """
    return (
        data.count(b"[") != data.count(b"[{") + data.count(b"[]") + data.count(b"[\n")
        or data.count(b"\\") != data.count(b"\\n")
        or b"\xef\xbc\xbb" in data
    )


def restore_plain(treatment: Treatment, data: bytes) -> bytes:
    """Treat bytes that are no JSON."""
    text = data.decode("utf-8", "surrogateescape")
    restored = treatment.whole(text)
    return data if restored == text else restored.encode("utf-8", "surrogateescape")


def restore_document(treatment: Treatment, document: Any) -> tuple[Any, bool]:
    """Treat every string of a parsed document, keys included, in place; returns it and whether anything changed."""
    if isinstance(document, str):
        restored = treatment.whole(document)
        return restored, restored != document
    if isinstance(document, dict) and isinstance(document.get("choices"), list):
        choices = document["choices"]
        changed = _restore_choices(treatment, choices)
        document["choices"] = None  # done; its place among the members stays
        changed |= _restore_node(treatment, document)
        document["choices"] = choices
        return document, changed
    return document, _restore_node(treatment, document)


def _restore_choices(treatment: Treatment, choices: list[Any]) -> bool:
    """Restore the choices; the log probabilities of one that changed would disagree with its text, so they go."""
    changed = False
    for choice in choices:
        if _restore_node(treatment, choice):
            changed = True
            if isinstance(choice, dict) and choice.get("logprobs"):
                choice["logprobs"] = None
    return changed


def _restore_node(treatment: Treatment, root: Any) -> bool:
    changed = False
    pending: list[Any] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            changed |= _restore_members(treatment, node, pending)
        elif isinstance(node, list):
            for at, item in enumerate(node):
                if isinstance(item, str):
                    restored = treatment.whole(item)
                    if restored != item:
                        node[at] = restored
                        changed = True
                elif isinstance(item, (dict, list)):
                    pending.append(item)
    return changed


def _restore_members(treatment: Treatment, node: dict[str, Any], pending: list[Any]) -> bool:
    changed = False
    renamed = False
    for key, value in node.items():
        if "[" in key or "\uff3b" in key:
            renamed = True
        if isinstance(value, str):
            restored = treatment.whole(value, is_json=key in JSON_KEYS, name=key)
            if restored != value:
                node[key] = restored
                changed = True
                if key in ANNOTATED and isinstance(node.get("annotations"), list):
                    shift_annotations(node["annotations"], treatment.places(value))
                if node.get("logprobs"):
                    node["logprobs"] = []
        elif isinstance(value, (dict, list)):
            pending.append(value)
    if renamed:
        members = [(treatment.vault.restore_text(key), value) for key, value in node.items()]
        if [key for key, _ in members] != list(node):
            node.clear()
            node.update(members)
            changed = True
    return changed
