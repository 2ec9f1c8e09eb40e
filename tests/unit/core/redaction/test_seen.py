"""What is remembered of texts that come again."""

from __future__ import annotations

from proxy.core.redaction.detect import build_detector
from proxy.core.redaction.seen import Remembering
from proxy.terms.redaction import Finding

TEXT = "The rollout of the new billing flow went well; write to ana.souza@example.com or call +55 11 98765-4321 today."


class Counting:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.inner = build_detector()

    def find(self, text: str) -> list[Finding]:
        self.texts.append(text)
        return self.inner.find(text)

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        return self.inner.find_labelled(text, label)

    def may_contain(self, raw: bytes) -> bool:
        return self.inner.may_contain(raw)

    def is_silent(self, raw: bytes) -> bool:
        return self.inner.is_silent(raw)


def test_history_that_comes_again_is_searched_once() -> None:
    """A conversation of fifty turns sends its first message fifty times."""
    detector = Counting()
    seen = Remembering(detector)

    assert detector.inner.find(TEXT) == seen.find(TEXT) == seen.find(TEXT)
    assert [TEXT] == detector.texts
    assert seen.find(TEXT + ".") == detector.inner.find(TEXT + ".")


def test_memory_holds_no_text_and_stays_bounded() -> None:
    """A heap dump of it must tell nobody anything, and strange traffic must not fill it."""
    seen = Remembering(Counting())
    for number in range(6000):
        seen.find(f"{number:05} {TEXT}")

    kept = {**seen.memory._old, **seen.memory.newest}
    assert 1024 <= len(kept) <= 4096
    assert all(type(key) is int or len(key) == 16 for key in kept)
    assert {"EMAIL", "PHONE"} == {f.kind for found in kept.values() for f in found}
