"""Detectors: text in, findings (kind and span) out, nothing remembered.

Owns the tables of kinds, their checks and the scan. Does not know JSON, policies, actions or placeholders.
Called by core/redaction (the walk and the streaming redactor) and by the docs generator.
"""

from __future__ import annotations

from proxy.core.redaction.detect.catalog import ALL_KINDS, DEFAULT_KINDS, KNOWN_KINDS, OPT_IN_KINDS, kinds_of
from proxy.core.redaction.detect.custom import finder_of, why_unsound
from proxy.core.redaction.detect.detector import Detector, build_detector
from proxy.core.redaction.detect.kinds import CustomType
from proxy.core.redaction.detect.validators import VALIDATORS


def kind_table() -> list[tuple[str, str, str, str, str, str]]:
    """Return a row per kind for the docs: name, description, mode, validator, countries, example."""
    return [(k.name, k.title, k.mode, k.check, k.countries, k.example) for k in ALL_KINDS]


__all__ = [
    "DEFAULT_KINDS",
    "KNOWN_KINDS",
    "OPT_IN_KINDS",
    "VALIDATORS",
    "CustomType",
    "Detector",
    "build_detector",
    "finder_of",
    "kind_table",
    "kinds_of",
    "why_unsound",
]
