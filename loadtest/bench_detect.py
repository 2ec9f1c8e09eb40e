"""Times the detector beside a plain loop of compiled ``re`` patterns, in one run: read the ratios.

    python -m loadtest.bench_detect [--quick]

The text is prose, code, JSON and logs in English and Portuguese; at 1 % density one character in a hundred belongs to
a value. Times are best-of-many CPU time of this thread.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from loadtest.plot import Panel, draw
from proxy.core.redaction.detect import Detector, build_detector

FILLER = (
    "Could you summarise the meeting notes and list the open questions for the next sprint, please? ",
    "The deployment failed twice because the health probe answered before the cache was warm. ",
    "Por favor, revise o contrato e me diga quais cláusulas mudaram desde a última versão. ",
    "O cliente pediu um resumo em três parágrafos, com foco nos prazos e nas multas. ",
    "def total(rows):\n    return sum(row.amount for row in rows if row.amount > 0)\n",
    '{"role": "user", "content": "compare the two plans", "temperature": 0.2, "max_tokens": 512}\n',
    "2026-11-21 10:20:40 INFO worker-3 job 18231 done in 4.2 s\n",
    "We ship version 2.14.3 on Friday; ticket OPS-4512 tracks the roll-out to 12 regions. ",
    "for i in range(100):\n    print(i * 3.14159, items[i].name)\n",
    "Prices rose by 3.5% in Q3, while support requests fell from 1,204 to 987 per week. ",
)
VALUES = (
    "ana.souza@example.com", "529.982.247-25", "+55 11 98765-4321", "4111 1111 1111 1111", "11.222.333/0001-81",
    "GB82 WEST 1234 5698 7654 32", "536-22-8726", "203.0.113.7", "(415) 555-0132", "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",
)  # fmt: skip
NAIVE = tuple(
    re.compile(p)
    for p in (
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}", r"\b\d{3}\.\d{3}\.\d{3}-\d{2}\b", r"\b\d{2}\.\d{3}\.\d{3}/\d{4}-\d{2}\b",
        r"\b(?:\d{4}[ -]?){3}\d{4}\b", r"\+?\d{1,3}[ -]?\(?\d{2,3}\)?[ -]?\d{4,5}[ -]?\d{4}", r"\b\d{3}-\d{2}-\d{4}\b",
        r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b", r"\b(?:\d{1,3}\.){3}\d{1,3}\b", r"\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b",
        r"\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b", r"\bAKIA[0-9A-Z]{16}\b", r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
        r"\bsk-[A-Za-z0-9_-]{20,}\b", r"\bxox[abps]-[A-Za-z0-9-]{10,}\b", r"\beyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----", r"\w+://[^/\s:@]+:[^/\s@]+@", r"\bAIza[0-9A-Za-z_-]{35}\b", r"\b[A-Z]{5}\d{4}[A-Z]\b",
        r"\b[A-CEGHJ-PR-TW-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b", r"\b\d{8}[A-Z]\b", r"\b[XYZ]\d{7}[A-Z]\b",
        r"\b[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]\b", r"\b\d{4} ?\d{4} ?\d{4}\b", r"\b9\d{2}-\d{2}-\d{4}\b", r"\b\d{2}-\d{7}\b",
        r"\b\d{9}\b", r"\b\d{11}\b", r"\b\d{14}\b", r"\b[13][a-km-zA-HJ-NP-Z1-9]{25,34}\b", r"\bbc1[a-z0-9]{20,60}\b",
        r"(?i)\bpassword\b\s*[:=]\s*\S+", r"(?i)\bapi[_-]?key\b\s*[:=]\s*\S+",
    )
)  # fmt: skip
SIZES = (200, 2_000, 20_000, 200_000)


def make_text(size: int, density: float, seed: int = 7, *, ascii_only: bool = False) -> str:
    """Return ``size`` characters of filler in which ``density`` of the characters belong to values."""
    rng = random.Random(seed)
    fillers = [f for f in FILLER if f.isascii()] if ascii_only else list(FILLER)
    parts: list[str] = []
    length = planted = 0
    while length < size:
        if planted < density * (length + 20):
            value = rng.choice(VALUES)
            parts.append(f"{value} ")
            planted += len(value)
        else:
            parts.append(rng.choice(fillers))
        length += len(parts[-1])
    return "".join(parts)[:size]


def best_us(call: Callable[[], object], *, rounds: int, budget_s: float) -> float:
    """Return the best mean time of a call, in microseconds."""
    best = float("inf")
    loops = 1
    while True:
        began = time.thread_time()
        for _ in range(loops):
            call()
        took = time.thread_time() - began
        if took > budget_s / rounds or loops > 100_000:
            break
        loops *= 2
    for _ in range(rounds):
        began = time.thread_time()
        for _ in range(loops):
            call()
        best = min(best, (time.thread_time() - began) / loops)
    return best * 1e6


def naive(text: str) -> int:
    """Run the loop every first redactor starts with."""
    return sum(1 for pattern in NAIVE for _ in pattern.finditer(text))


def print_speed(detector: Detector, budget_s: float) -> None:
    """Print one row per size and density."""
    write = sys.stdout.write
    write(f"{'text':>22} {'find µs':>10} {'loop µs':>10} {'ratio':>6} {'MB/s':>7} {'found':>6}\n")
    for density in (0.0, 0.01, 0.05):
        for size in SIZES:
            texts = [make_text(size, density, seed, ascii_only=True) for seed in range(8 if size < 20_000 else 1)]
            ours = sum(best_us(lambda t=t: detector.find(t), rounds=5, budget_s=budget_s) for t in texts) / len(texts)  # type: ignore[misc]
            loop = sum(best_us(lambda t=t: naive(t), rounds=3, budget_s=budget_s) for t in texts) / len(texts)  # type: ignore[misc]
            found = sum(len(detector.find(t)) for t in texts) / len(texts)
            write(
                f"{size:>12} B {density:6.0%} {ours:10.1f} {loop:10.1f} {loop / ours:6.1f} {size / ours:7.1f} {found:6.1f}\n"
            )


def print_gate(detector: Detector, budget_s: float) -> None:
    """Print the gate over a chat body and over prose with nothing in it."""
    plain = "the quick brown fox jumps over the lazy dog and asks what the weather will be like. "
    body = json.dumps(
        {"model": "gpt-4o-mini-2024-07-18", "messages": [{"role": "user", "content": plain * 30}]}
    ).encode()
    for name, raw in (
        ("200 B prose", (plain * 3)[:200].encode()),
        ("chat body", body),
        ("200 KB prose", (plain * 2500).encode()),
    ):
        took = best_us(lambda raw=raw: detector.may_contain(raw), rounds=5, budget_s=budget_s)  # type: ignore[misc]
        sys.stdout.write(
            f"gate {name:>14} {len(raw):>8} B {took:8.1f} µs {len(raw) / took:8.0f} MB/s -> {detector.may_contain(raw)}\n"
        )
    text = (plain * 3)[:200]
    took = best_us(lambda: detector.find(text), rounds=5, budget_s=budget_s)
    sys.stdout.write(f"find on 200 B of nothing {took:.2f} µs\n")


HOSTILE = (
    "1", "1 ", "123 ", "12-", "0-", "01 ", "@", "a@", "(", "eyJ", "eyJhbGciOi.", "password ", "token=", "cpf ", "A1", "::", "1.",
    "-----BEGIN PRIVATE KEY-----", "x,y\n", "curl -u ", 'auth("',
    "1990-05-03 ", "1.1.1.1 ", "10.0.0.1:", "1(", "password:", "sshpass -p ", "xoxb-1-", "x 1234567890, ",
)  # fmt: skip
"""What hurts most when repeated."""


def hostile(detector: Detector) -> dict[str, dict[str, float]]:
    """Return the time per byte of texts made to hurt, in ns, at two sizes: linear means they are alike."""
    groups: dict[str, dict[str, float]] = {}
    for piece in HOSTILE:
        row: dict[str, float] = {}
        for name, size in (("20 KB", 20_000), ("200 KB", 200_000)):
            text = (piece * (size // len(piece) + 1))[:size]
            times = []
            for _ in range(3):
                began = time.thread_time()
                detector.find(text)
                times.append(time.thread_time() - began)
            row[name] = min(times) * 1e9 / size
        groups[repr(piece[:16])] = row
    return groups


def print_hostile(detector: Detector, plot: str) -> None:
    """Print what hurts, and draw it when a file is named."""
    groups = hostile(detector)
    for name, row in groups.items():
        sys.stdout.write(f"{name:>20} " + "   ".join(f"{size} {ns:7.0f} ns/B" for size, ns in row.items()) + "\n")
    if plot:
        title = "Hostile text, a piece repeated: ns per byte at two sizes (alike: linear)"
        Path(plot).write_text(draw([Panel(title, groups)], ["20 KB", "200 KB"]))


def main() -> int:
    """Run all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", default="", metavar="FILE", help="draw the hostile texts there, as SVG")
    args = parser.parse_args()
    budget_s = 0.02 if args.quick else 0.2
    began = time.perf_counter()
    detector = build_detector()
    sys.stdout.write(f"compiled in {(time.perf_counter() - began) * 1e3:.0f} ms\n")
    print_speed(detector, budget_s)
    print_gate(detector, budget_s)
    print_hostile(detector, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
