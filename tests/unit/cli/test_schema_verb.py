"""``readygate schema``: what editors are told is what the loader says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from proxy.cli.schema import schema_of

ROOT = Path(__file__).parents[3]
CASES = sorted((ROOT / "policies").glob("*.cases.yaml"))
POLICIES = [path for path in sorted((ROOT / "policies").glob("*.yaml")) if path not in CASES]


def plain(path: Path) -> Any:
    return yaml.safe_load(path.read_text())  # noqa: TID251 - what an editor's own parser makes of the file


def complaints(kind: str, document: Any) -> list[str]:
    schema = schema_of(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    return [found.message for found in jsonschema.Draft202012Validator(schema).iter_errors(document)]


def test_files_of_the_repository_fit_their_schema() -> None:
    """An editor must not underline what the sidecar accepts."""
    assert [] == complaints("config", plain(ROOT / "config.yaml"))
    for path in POLICIES:
        assert [] == complaints("policy", plain(path)), path.name
    for path in CASES:
        assert [] == complaints("cases", plain(path)), path.name


def test_published_schemas_are_what_the_tables_say() -> None:
    """Editors read the files in docs/schema by the modeline of each file; `make reference` writes them."""
    for kind in ("config", "policy", "cases"):
        published = (ROOT / "docs" / "schema" / f"{kind}.schema.json").read_text()
        assert json.dumps(schema_of(kind), indent=2) + "\n" == published, f"{kind}: run `make reference`"
    for path in (ROOT / "config.yaml", *POLICIES, *CASES):
        modeline = path.read_text().split("\n", 1)[0]
        assert modeline.startswith("# yaml-language-server: $schema="), path.name
        assert (path.parent / modeline.split("=", 1)[1]).is_file(), path.name


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ({"version": 1, "policy": "p", "rediction": {}}, "rediction"),
        ({"version": 1, "policy": "p", "mode": "observ"}, "observ"),
        ({"version": 1, "policy": "p", "routes": [{"match": {"models": "fast"}}]}, "fast"),
        ({"version": 1}, "policy"),
        ({"version": 1, "policy": "p", "routes": [{"match": {}, "chain": [{"provider": "a", "timeouts": 5}]}]}, "5"),
    ],
)
def test_a_mistake_the_loader_refuses_is_underlined(document: Any, part: str) -> None:
    """Unknown keys, wrong words, wrong shapes and missing keys show while one types."""
    assert any(part in text for text in complaints("policy", document))


def test_every_key_explains_itself() -> None:
    """Hovering over a key shows its meaning."""

    def walk(schema: dict[str, Any], path: str) -> None:
        for name, inner in schema.get("properties", {}).items():
            assert len(inner.get("description", "")) > 8, f"{path}.{name}"
            walk(inner, f"{path}.{name}")
            walk(inner.get("items", {}), f"{path}.{name}[]")

    walk(schema_of("policy"), "")
    walk({"properties": {"providers": schema_of("config")["properties"]["providers"]}}, "")


def test_defaults_and_examples_fit_the_schema_they_stand_in() -> None:
    """An example that an editor inserts and then underlines would be worse than none."""

    def walk(schema: dict[str, Any], path: str) -> None:
        values = [*schema.get("examples", ()), *([schema["default"]] if "default" in schema else [])]
        for value in values:
            plain = {key: part for key, part in schema.items() if key not in ("default", "examples")}
            jsonschema.validate(value, plain)
        for name, inner in schema.get("properties", {}).items():
            walk(inner, f"{path}.{name}")
        for inner in (schema.get("items"), schema.get("additionalProperties")):
            if isinstance(inner, dict):
                walk(inner, path)

    walk(schema_of("policy"), "policy")
    walk(schema_of("config"), "config")


def test_the_verb_prints_and_writes_the_schema(tmp_path: Path) -> None:
    """It can go into a repository beside the policies."""
    target = tmp_path / "policy.schema.json"
    command = [sys.executable, "-m", "proxy", "schema", "policy"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    subprocess.run([*command, "-o", str(target)], cwd=ROOT, check=True)

    assert json.loads(printed) == json.loads(target.read_text()) == schema_of("policy")


def test_an_unwritable_place_is_a_plain_message() -> None:
    """No traceback for a typing mistake."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "schema", "config", "-o", "/nowhere/x.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 2 == done.returncode
    assert "readygate schema: /nowhere/x.json: No such file or directory\n" == done.stderr
