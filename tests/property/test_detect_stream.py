"""Whatever the cuts, a stream that holds back what is live finds what the whole text holds."""

from __future__ import annotations

import random

from loadtest.score_detect import OWN_FILES, load_rows
from proxy.core.redaction.detect import Detector, build_detector

DETECTOR = build_detector()
LEFT = 96


def _streamed(detector: Detector, pieces: list[str]) -> tuple[list[tuple[int, int, str]], int]:
    """Play the redactor of a stream: hold from the live start, judge and release the rest. Also return the largest hold."""
    context = held = ""
    released = largest = 0
    found: list[tuple[int, int, str]] = []
    for i, piece in enumerate([*pieces, ""]):
        is_final = i == len(pieces)
        text = context + held + piece
        shift = released - len(context)
        findings = detector.find(text, local=True)
        cut = max(len(context), len(text) if is_final else detector.live_start(text))
        for f in findings:
            if f.start < cut < f.end or (not is_final and f.start >= len(context) and f.end == len(text)):
                cut = min(cut, max(f.start, len(context)))
        found += [
            (f.start + shift, f.end + shift, f.kind) for f in findings if len(context) <= f.start and f.end <= cut
        ]
        released += cut - len(context)
        context, held = text[:cut][-LEFT:], text[cut:]
        largest = max(largest, len(held))
    return found, largest


def test_stream_finds_what_the_whole_text_holds() -> None:
    """The words of a model come in pieces of any size; a value cut in two is a value leaked."""
    rng = random.Random(11)
    rows = [row["text"] for row in load_rows(("synthetic",)) if len(row["text"]) < 600 and row["slice"] != "pem"]
    own = [row["text"] for row in load_rows(OWN_FILES) if row["slice"] != "pem"]
    differing = []
    for text in [*rng.sample(rows, 250), *rng.sample(own, 250)]:
        cuts = sorted({rng.randrange(len(text)) for _ in range(len(text) // 5 + 1)})
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        found, largest = _streamed(DETECTOR, pieces)
        if found != [(f.start, f.end, f.kind) for f in DETECTOR.find(text, local=True)] and largest < 256:
            differing.append(text)

    assert len(differing) <= 1, differing
