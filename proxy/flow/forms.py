"""A request in the form that one target wants: parameters left out or renamed, or another dialect.

Owns the change. Knows no exchange; large bodies are changed in the process that reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from proxy.core.dialect.seam import dumps_any
from proxy.core.dialect.to_messages import Untranslatable, to_messages
from proxy.flow.intake import with_model


@dataclass(frozen=True, slots=True)
class Form:
    """What a target wants."""

    model: str
    renamed: str | None
    """The target's own name for the model, where the request has another."""
    drop_params: tuple[str, ...]
    rename_params: tuple[tuple[str, str], ...]
    is_messages: bool
    """It speaks the Messages API."""


@dataclass(frozen=True, slots=True)
class Shaped:
    """What became of a request besides its body."""

    why: str = ""
    """Why the target can have nothing, in a word; empty when it can."""
    notes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """What was dropped, renamed or changed."""


def in_form(form: Form, body: bytes) -> tuple[Shaped, bytes]:
    """Return a JSON body in a target's form; one that is under another model name already stays so."""
    document: Any = orjson.loads(body)
    notes: list[tuple[str, tuple[str, ...]]] = []
    if isinstance(document, dict):
        document = _adapted(form, document, notes)
    if form.is_messages:
        try:
            made = to_messages(document, form.model)
        except Untranslatable as exc:
            return Shaped(f"no_counterpart:{exc}", tuple(notes)), b""
        notes += [("dropped", tuple(made.dropped)), ("changed", tuple(made.changed))]
        document = made.document
    return Shaped("", tuple(notes)), dumps_any(document)


def in_form_from(form: Form, body: bytes) -> tuple[Shaped, bytes]:
    """The same for a body that is not yet under the target's name for the model."""
    return in_form(form, body if form.renamed is None else with_model(body, None, form.renamed))


def _adapted(form: Form, document: dict[str, Any], notes: list[tuple[str, tuple[str, ...]]]) -> dict[str, Any]:
    """Leave out and rename parameters as the target's policy says."""
    dropped = tuple(name for name in form.drop_params if name in document)
    renamed = {old: new for old, new in form.rename_params if old in document and old not in dropped}
    notes += [("dropped", dropped), ("renamed", tuple(renamed))]
    return {renamed.get(key, key): value for key, value in document.items() if key not in dropped}
