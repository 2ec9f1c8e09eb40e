"""Scores the detector on the labelled data: the table of strict and lenient F1, leaks and false alarms per type.

Run: python -m loadtest.score_detect [--errors KIND|all] [--by type|slice|both]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from proxy.core.redaction.detect import Detector, build_detector

DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "pii"
FILES = ("synthetic", "presidio_tests", "presidio_research", "secrets_gitleaks")
OWN_FILES = ("adversarial", "personal")
ORIGIN_FIVE = ("EMAIL", "PHONE", "CPF", "CNPJ", "CREDIT_CARD")
SECRETS = ("API_KEY", "PASSWORD", "JWT", "PRIVATE_KEY", "URL_CREDENTIALS")


def load_scorer() -> ModuleType:
    """Return the scorer that lies beside the data."""
    spec = importlib.util.spec_from_file_location("pii_score", DATA / "score.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(DATA)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_rows(names: tuple[str, ...] = FILES) -> list[dict[str, Any]]:
    """Return the labelled rows of the files named."""
    return [json.loads(line) for name in names for line in (DATA / f"{name}.jsonl").open(encoding="utf-8")]


def predict(detector: Detector, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the detector's spans per row id, in the scorer's form."""
    return {
        row["id"]: {
            "id": row["id"],
            "spans": [{"start": f.start, "end": f.end, "type": f.kind} for f in detector.find(row["text"])],
        }
        for row in rows
    }


def subset_f1(result: dict[str, Any], kinds: tuple[str, ...], view: str = "lenient") -> float:
    """Return F1 over some types, from their counts."""
    rows = [result["types"][k][view] for k in kinds if k in result["types"]]
    right = sum(r["p"] * r["pred"] for r in rows)
    predicted, gold = sum(r["pred"] for r in rows), sum(r["gold"] for r in rows)
    return round(2 * right / (predicted + gold), 4) if predicted + gold else 0.0


def _print_table(result: dict[str, Any], by: str) -> None:
    write = sys.stdout.write
    for view in ("strict", "lenient", "detect"):
        row = result[view]
        write(f"{view:8} P {row['p']:.4f}  R {row['r']:.4f}  F1 {row['f1']:.4f}\n")
    negatives = result["hard_negatives"]
    write(f"leak {result['leak']:.4f}  exposed {result['exposed']:.4f}  over/10k {result['over_per_10k']}\n")
    write(f"hard negatives hit {negatives['rows_hit']:.4f} of {negatives['rows']}\n")
    write(f"origin's five, lenient F1 {subset_f1(result, ORIGIN_FIVE):.4f}\n")
    write(f"secrets, lenient F1 {subset_f1(result, SECRETS):.4f}\n")
    if by in ("type", "both"):
        write(f"\n{'type':20} {'gold':>5} {'pred':>5}   strict P/R/F1        lenient F1  leak\n")
        for name, row in result["types"].items():
            s, le = row["strict"], row["lenient"]
            leak = "" if row["leak"] is None else f"{row['leak']:.3f}"
            write(
                f"{name:20} {s['gold']:5} {s['pred']:5}   {s['p']:.3f} {s['r']:.3f} {s['f1']:.3f}   {le['f1']:.3f}  {leak}\n"
            )
    if by in ("slice", "both"):
        for name, row in result["slices"].items():
            write(f"{name:22} {row['gold']:5}  {row['p']:.3f} {row['r']:.3f} {row['f1']:.3f}  {row['leak']}\n")


def _print_errors(rows: list[dict[str, Any]], predicted: dict[str, dict[str, Any]], kind: str, limit: int) -> None:
    """Show what was missed (-) and what was wrongly reported (+)."""
    shown = 0
    for row in rows:
        judged = row.get("eval_types")
        gold = {(s["start"], s["end"], s["type"]) for s in row["spans"] if not s.get("ignore")}
        neutral = [(s["start"], s["end"]) for s in row["spans"] if s.get("ignore")]
        got = {(s["start"], s["end"], s["type"]) for s in predicted[row["id"]]["spans"]}
        got = {g for g in got if not any(g[0] < e and s < g[1] for s, e in neutral)}
        got = {g for g in got if not judged or g[2] in judged}
        marks = [("-", g) for g in gold - got] + [("+", g) for g in got - gold]
        marks = [m for m in marks if kind in ("all", m[1][2])]
        if not marks:
            continue
        shown += 1
        if shown > limit:
            return
        sys.stdout.write(f"{row['slice']}: {row['text'][:300]!r}\n")
        for sign, (start, end, name) in sorted(marks):
            sys.stdout.write(f"    {sign} {name} {row['text'][start:end][:120]!r}\n")


def main() -> int:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", choices=("type", "slice", "both", "none"), default="type")
    parser.add_argument("--errors", default="", help="show wrong rows of a kind, or all")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--files", nargs="*", default=list(FILES))
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    rows = load_rows(tuple(args.files))
    detector = build_detector(engine=args.engine)
    began = time.process_time()
    predicted = predict(detector, rows)
    took = time.process_time() - began
    if args.errors:
        _print_errors(rows, predicted, args.errors, args.limit)
        return 0
    _print_table(load_scorer().evaluate(rows, predicted), args.by)
    sys.stdout.write(f"\n{len(rows)} rows in {took:.2f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
