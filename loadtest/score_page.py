"""docs/redaction-scores.md, from the scorer: overall beside other tools, then per type. ``python -m loadtest.score_page`` writes it.

Owns the page's layout and the other tools' figures, which were measured once on the same development data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loadtest.score_detect import FILES, ORIGIN_FIVE, OWN_FILES, SECRETS, load_rows, load_scorer, predict, subset_f1
from proxy.core.redaction.detect import build_detector

PAGE = Path(__file__).resolve().parents[1] / "docs/redaction-scores.md"
OTHERS = (
    ("depii 0.3.0", ".840 / .752 / .794", ".843", ".206", ".193", ".265", ".915"),
    ("Presidio, every country on, threshold 0.4", ".767 / .586 / .664", ".687", ".559", ".343", ".333", ".783"),
    ("presidio-rs 0.1.11", ".694 / .586 / .635", ".640", ".531", ".316", ".494", ".765"),
    ("argus-redact 0.8.22", ".618 / .526 / .569", ".592", ".312", ".344", ".406", ".718"),
    ("Presidio, default + small spaCy, threshold 0.4", ".738 / .434 / .546", ".572", ".641", ".495", ".307", ".774"),
    ("euredact 0.7.0", ".528 / .410 / .462", ".523", ".284", ".452", ".502", ".670"),
    ("piigex 0.2.0", ".777 / .326 / .460", ".466", ".724", ".645", ".198", ".592"),
    ("datafog-core 0.4.4", ".662 / .294 / .407", ".441", ".698", ".636", ".298", ".718"),
    ("scrubadub 2.0.1", ".682 / .216 / .328", ".358", ".810", ".740", ".215", ".643"),
    ("five naive regexes", ".461 / .224 / .302", ".338", ".708", ".700", ".338", ".583"),
)
"""Name; strict P / R / F1; lenient F1; leaked characters; exposed spans; hard negatives hit; the origin's five types."""

HEAD = """\
# How well redaction finds

Made by `python -m loadtest.score_page`; the data and their policy are in tests/data/pii. Strict: exact span and type. Lenient: half overlap.
Leak: letters and digits of values left standing. Exposed: values with any letter or digit left. The other tools were run on the same
development data, in their favour where there was a choice.
"""


def short(value: float) -> str:
    """Return a ratio the way the tables write it."""
    return f"{value:.3f}".removeprefix("0") if value < 1 else "1.000"


def our_row(name: str, result: dict[str, Any]) -> str:
    """Return our line of the overall table."""
    strict = result["strict"]
    figures = (
        " / ".join(short(strict[k]) for k in ("p", "r", "f1")), short(result["lenient"]["f1"]), short(result["leak"]),
        short(result["exposed"]), short(result["hard_negatives"]["rows_hit"]), short(subset_f1(result, ORIGIN_FIVE)),
    )  # fmt: skip
    return f"| **{name}** | " + " | ".join(f"**{figure}**" for figure in figures) + " |"


def render() -> str:
    """Return the page."""
    detector = build_detector()
    scorer = load_scorer()
    rows, own_rows = load_rows(FILES), load_rows(OWN_FILES)
    result = scorer.evaluate(rows, predict(detector, rows))
    own = scorer.evaluate(own_rows, predict(detector, own_rows))
    lines = [HEAD, f"## Development data ({len(rows)} rows)\n"]
    lines += [
        "| tool | strict P / R / F1 | lenient F1 | leak | exposed | hard negatives hit | five types, lenient |",
        "|---|---|---|---|---|---|---|",
    ]
    lines.append(our_row("Readygate", result))
    lines += [f"| {' | '.join(row)} |" for row in OTHERS]
    lines.append(
        f"\nSecrets (keys, passwords, JWTs, private keys, credentials in URLs), lenient F1: {short(subset_f1(result, SECRETS))}; best other: .795 (Kingfisher)."
    )
    lines.append(
        f"\nOn {len(own_rows)} rows of other templates (shell, containers, code, logs, forms, tables, chat in twelve languages; adversarial.jsonl and personal.jsonl): strict F1 "
        f"{short(own['strict']['f1'])}, exposed {short(own['exposed'])}, hard negatives hit {short(own['hard_negatives']['rows_hit'])}. "
        "These were used to mend the tables, so read them as a floor that holds, not as a forecast."
    )
    lines += ["\n## Per type\n", "| type | values | precision | recall | F1 | leak |", "|---|---|---|---|---|---|"]
    lines += per_type(result)
    return "\n".join(lines) + "\n"


def per_type(result: dict[str, Any]) -> Iterator[str]:
    """Yield a line per type of the data, strict."""
    for name, row in sorted(result["types"].items()):
        strict = row["strict"]
        if strict["gold"]:
            leak = "" if row["leak"] is None else short(row["leak"])
            yield f"| `{name.lower()}` | {strict['gold']} | {short(strict['p'])} | {short(strict['r'])} | {short(strict['f1'])} | {leak} |"


if __name__ == "__main__":
    PAGE.write_text(render())
    print(PAGE.read_text()[:2600])
