"""The stages that the framing and security tests share: one process each, started once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.support.sidecar import CONFIG, Stage, brittle_config, brittle_policies, stage

CALLER_KEY = "rg-caller-canary-3Mv8Xc1Bn6Za"
"""The key of the only caller that the guarded stage knows."""


@pytest.fixture(scope="session")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A sidecar with ordinary limits and no caller keys."""
    with stage(tmp_path_factory.mktemp("ordinary")) as running:
        yield running


@pytest.fixture(scope="session")
def brittle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The ordinary sidecar with 48 more providers, for faults to be played on."""
    with stage(tmp_path_factory.mktemp("brittle"), config=brittle_config(), policies=brittle_policies()) as running:
        yield running


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A sidecar whose patience with callers is a second."""
    server = "max_body: 1MiB, max_upload: 2MiB, timeouts: {head: 1s, body: 1s, write_stall: 1s, keepalive: 1s}"
    with stage(tmp_path_factory.mktemp("hasty"), server=server) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A sidecar that demands caller keys and takes eight connections."""
    digest = hashlib.sha256(CALLER_KEY.encode()).hexdigest()
    callers = f'callers: [{{name: shop, app: shop, sha256: "{digest}"}}]\n'
    with stage(tmp_path_factory.mktemp("guarded"), config=CONFIG + callers.replace("{", "{{").replace("}", "}}"),
               server="max_connections: 8") as running:  # fmt: skip
        yield running


@pytest.fixture(scope="session")
def caller_key() -> str:
    """The key that the guarded stage accepts."""
    return CALLER_KEY
