"""``readygate init``: ask a few questions and write a first config.yaml with a starter policy and its cases.

Owns the questions and the provider entries it writes. The starter policies are files of the distribution; they are
copied, so that what one reads in policies/starters is what one gets. Never overwrites a file.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import proxy
from proxy.core.config.schema import closest

PROVIDERS: Final = {
    "openai": '{base_url: "https://api.openai.com/v1", api_key: {env: OPENAI_API_KEY}}',
    "groq": '{base_url: "https://api.groq.com/openai/v1", api_key: {env: GROQ_API_KEY}}',
    "cerebras": '{base_url: "https://api.cerebras.ai/v1", api_key: {env: CEREBRAS_API_KEY}}',
    "gemini": '{base_url: "https://generativelanguage.googleapis.com/v1beta/openai", api_key: {env: GEMINI_API_KEY}}',
    "openrouter": '{base_url: "https://openrouter.ai/api/v1", api_key: {env: OPENROUTER_API_KEY}}',
    "local": '{base_url: "http://127.0.0.1:11434/v1"}',
    "azure": (
        '{kind: azure, base_url: "https://example-resource.openai.azure.com/openai", '
        'api_key: {env: AZURE_OPENAI_API_KEY}, api_version: "2024-10-21"}'
    ),
}
CASES_SUFFIX: Final = ".cases.yaml"
_NAMED = re.compile(r"\bprovider: ([a-z][a-z0-9_-]*)")


def starters_folder() -> Path | None:
    """Return where the starter policies are: beside the package in a checkout, else where they were installed."""
    places = (
        Path(proxy.__file__).resolve().parents[1] / "policies" / "starters",
        Path(sys.prefix) / "share" / "readygate" / "starters",
    )
    return next((place for place in places if place.is_dir()), None)


def starters(folder: Path) -> dict[str, str]:
    """Return each starter's name with the sentence its file begins with."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.yaml")):
        if not path.name.endswith(CASES_SUFFIX):
            lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.startswith("# ")]
            found[path.stem] = next((line[2:] for line in lines if not line.startswith("# yaml-language-server")), "")
    return found


def add_parser(subparsers: Any) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "init",
        help="write a first config.yaml and a starter policy, after a few questions",
        description="Write config.yaml, one starter policy and its cases into a folder. Asks what the options do not "
        "say; with --yes it takes the defaults. Never overwrites a file. Exit code: 0 written, 2 not possible.",
    )
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where to (%(default)s)")
    parser.add_argument("--starter", metavar="NAME", help="which policy to begin with (--list shows them)")
    parser.add_argument("--provider", choices=tuple(PROVIDERS), help="whom to ask first, instead of the starter's")
    parser.add_argument("--list", action="store_true", help="list the starter policies and stop")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, write, and say what to do next; return the exit code."""
    folder = starters_folder()
    if folder is None:
        return _refuse("the starter policies were not installed; take them from the source distribution")
    known = starters(folder)
    if args.list:
        for name, sentence in known.items():
            print(f"{name:<14} {sentence}")
        return 0
    asks = not args.yes and sys.stdin.isatty()
    starter = args.starter or (
        _choose("Which policy to begin with?", known, "observe-first") if asks else "observe-first"
    )
    if starter not in known:
        hint = closest(starter, known)
        return _refuse(f"no starter {starter!r}; {hint + ' ' if hint else ''}there are {', '.join(known)}")
    policy = (folder / f"{starter}.yaml").read_text(encoding="utf-8")
    own = _NAMED.findall(policy)
    first = next(iter(_NAMED.findall(policy.partition("\nroutes:")[2])), "openai")
    provider = args.provider or (_choose("Whom to ask first?", dict.fromkeys(PROVIDERS, ""), first) if asks else first)
    if provider not in PROVIDERS:
        return _refuse(f"no provider {provider!r}; there are {', '.join(PROVIDERS)}")
    if provider != first and provider in own:
        return _refuse(f"{starter} asks {provider} anyway, after {first}; choose another provider to ask first")
    files = _files(folder, starter, policy, first, provider)
    target = Path(args.folder)
    taken = [str(target / name) for name in files if (target / name).exists()]
    if taken:
        return _refuse(f"{', '.join(taken)} is there already; choose another folder or move it away")
    try:
        for name, text in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(text, encoding="utf-8")
            print(f"wrote {target / name}")
    except OSError as exc:
        return _refuse(f"{exc.filename}: {exc.strerror}")
    config = target / "config.yaml"
    print(f"\nnext: readygate check -c {config} && readygate test -c {config} && readygate serve -c {config}")
    return 0


def _refuse(message: str) -> int:
    print(f"readygate init: {message}", file=sys.stderr)
    return 2


def _choose(question: str, choices: dict[str, str], default: str, read: Callable[[str], str] = input) -> str:
    for name, sentence in choices.items():
        print(f"  {name:<14} {sentence}")
    try:
        return read(f"{question} [{default}] ").strip() or default
    except EOFError:
        return default


def _files(folder: Path, starter: str, policy: str, first: str, provider: str) -> dict[str, str]:
    """Return the texts to write by their names, the first provider replaced by the one that was chosen."""

    def adapted(text: str) -> str:
        if provider == first:
            return text
        text = re.sub(rf"\b(provider: ){first}\b", rf"\g<1>{provider}", text)
        text = re.sub(rf'"{first}:', f'"{provider}:', text)
        return re.sub(rf"(providers: \{{|providers\.){first}\b", rf"\g<1>{provider}", text)

    policy = adapted(policy)
    names = dict.fromkeys([*_NAMED.findall(policy), provider])
    entries = "\n".join(f"  {name}: {PROVIDERS[name]}" for name in names if name in PROVIDERS)
    needs_prices = "cost_per_" in policy
    config = _CONFIG.format(providers=entries, prices="prices: prices.yaml\n" if needs_prices else "")
    cases = adapted((folder / f"{starter}{CASES_SUFFIX}").read_text(encoding="utf-8"))
    files = {
        "config.yaml": config,
        f"policies/{starter}.yaml": _without_modeline(policy),
        f"policies/{starter}{CASES_SUFFIX}": _without_modeline(cases),
    }
    guess = f'  - {{provider: {provider}, model: "*", input: 3, output: 12}}     # a guess, until you know better\n'
    return files | ({"prices.yaml": _PRICES + guess} if needs_prices else {})


def _without_modeline(text: str) -> str:
    """Drop the line that names a schema beside the starter; `readygate schema policy` prints one to put anywhere."""
    return text.split("\n", 1)[1] if text.startswith("# yaml-language-server") else text


_CONFIG: Final = """\
# What exists here. What may happen stands in policies/; `readygate check` says everything that is wrong with either.
version: 1

server:
  data: {{host: 127.0.0.1, port: 8080}}       # the apps: OPENAI_BASE_URL=http://127.0.0.1:8080/v1
  admin: {{host: 127.0.0.1, port: 8081}}      # probes, metrics, status page, admin API

policies: policies/

providers:
{providers}

budgets: {{store: memory}}                    # each sidecar counts for itself; a redis:// URL: together
{prices}audit: {{store: "sqlite:///var/audit.db", spool: var/spool}}
"""

_PRICES: Final = """\
# US dollars for a million tokens. A sample: check it against your providers' pages.
version: 1
revision: "sample-1"
prices:
  - {provider: openai, model: "gpt-4o-mini*", input: 0.15, cached: 0.075, output: 0.6}
  - {provider: openai, model: "gpt-4o*", input: 2.5, cached: 1.25, output: 10}
  - {provider: groq, model: "llama-3.3-70b-versatile", input: 0.59, output: 0.79}
"""
