#!/usr/bin/env python3
"""Say which of the named YAML, TOML and JSON files cannot be parsed, and where."""

import json
import sys
import tomllib
from pathlib import Path

import yaml


def problem(path: Path) -> str | None:
    text = path.read_text(encoding="utf-8")
    try:
        match path.suffix:
            case ".json":
                json.loads(text)
            case ".toml":
                tomllib.loads(text)
            case _:
                for event in yaml.parse(text, Loader=yaml.SafeLoader):
                    del event
    except (ValueError, yaml.YAMLError) as exc:
        return f"{path}: {exc}"
    return None


if __name__ == "__main__":
    found = [line for name in sys.argv[1:] if (line := problem(Path(name))) is not None]
    print("\n".join(found), end="\n" if found else "")
    raise SystemExit(1 if found else 0)
