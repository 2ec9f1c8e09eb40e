"""The page of types is what the detector's tables say, and its examples are what the detector finds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.core.config.load import parse_settings
from proxy.core.policy.load import parse_policies
from proxy.core.redaction.detect import KNOWN_KINDS, build_detector
from proxy.core.redaction.detect.catalog import ALL_KINDS
from proxy.core.redaction.detect.kinds import Kind
from tests.docs import kinds_page

EVERYTHING = build_detector(KNOWN_KINDS)


def test_page_of_types_is_what_the_tables_say() -> None:
    """Policy authors choose types from this page: `make reference`."""
    assert kinds_page.render() == kinds_page.PAGE.read_text(), "stale: run `make reference`"


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.name)
def test_example_of_a_type_is_found(kind: Kind) -> None:
    """An example that is not recognised would make a liar of the page."""
    if kind.name in ("API_KEY", "PRIVATE_KEY", "JWT"):
        pytest.skip("the page shows only the beginning of a secret")
    label = f"{kind.labels[0]}: " if kind.labels and not kind.example.startswith(kind.labels[0]) else ""

    assert kind.name in {finding.kind for finding in EVERYTHING.find(label + kind.example)}


def test_own_type_of_the_readme_does_what_it_says(tmp_path: Path) -> None:
    """The block people copy must load, its examples included."""
    readme = (kinds_page.ROOT / "README.md").read_text()
    block = next(b for b in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "employee_id" in b)
    settings = parse_settings('version: 1\nproviders: {a: {base_url: "http://127.0.0.1:1/v1"}}\n', "c.yaml", tmp_path)
    assert settings.settings is not None
    policy = 'version: 1\npolicy: p\nroutes: [{match: {models: ["*"]}, chain: [{provider: a}]}]\n' + block

    assert () == parse_policies([("p.yaml", policy)], settings.settings, KNOWN_KINDS).problems
