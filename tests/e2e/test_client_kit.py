"""Unmodified clients (openai-python, openai-node, LangChain, curl) live as well with the sidecar as without it.

The kit and its upstream, a mock that somebody else wrote, come from PyPI and npm by name (tests/e2e/kit/README.md);
KIT_HOME names a folder where they are installed already.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sidecar_process import SidecarProcess, answers, free_port, running_sidecar, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KIT = Path(__file__).with_name("kit")
CHECKS = 131

CONFIG = """\
providers:
  mock: {{base_url: "{upstream}/v1"}}
default_provider: mock
audit: {{store: "sqlite:///audit.db", spool: spool}}
log: {{level: info, format: text}}
"""

# The kit counts attempts and broken ends itself, so the policy must neither retry nor soften a cut stream.
PLAIN = """\
version: 1
policy: kit
applies_to: {apps: ["*"]}
routes:
  - match: {models: ["*"]}
    chain: [{provider: mock}]
    retries: none
    broken_stream: cut
"""
REDACTING = PLAIN + "redaction: {request: {default: restore}}\n"


@pytest.fixture(scope="module")
def kit_home() -> Path:
    """The clients and their upstream, installed once."""
    if shutil.which("npm") is None:
        pytest.skip("the client kit needs npm: apt-get install npm")
    home = Path(os.environ.get("KIT_HOME", KIT / ".kit"))
    mark = home / ".installed"
    wanted = (KIT / "versions").read_text()
    is_named = "KIT_HOME" in os.environ and (home / "venv/dev/bin/python").exists()
    if not is_named and (not mark.exists() or mark.read_text() != wanted):
        environment = {**os.environ, "KIT_HOME": str(home)}
        done = subprocess.run(
            [str(KIT / "install")], env=environment, check=False, capture_output=True, text=True, timeout=900
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        mark.write_text(wanted)
    return home


@pytest.fixture(scope="module")
def upstream(kit_home: Path) -> Iterator[str]:
    """The mock provider, with no proxy in front."""
    port = free_port()
    environment = {**os.environ, "KIT_HOME": str(kit_home), "PORT": str(port)}
    process = subprocess.Popen(
        [str(KIT / "start-upstream")], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/v1/models"), 30, "aimock does not answer")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(params=[pytest.param(PLAIN, id="plain"), pytest.param(REDACTING, id="redacting")])
def sidecar(request: pytest.FixtureRequest, upstream: str, tmp_path: Path) -> Iterator[SidecarProcess]:
    """The sidecar in front of the mock, under a policy without retries."""
    with running_sidecar(tmp_path, CONFIG.format(upstream=upstream), {"kit.yaml": request.param}) as running:
        yield running


def verdict(kit_home: Path, base_url: str) -> tuple[int, list[str]]:
    """Run every client; return how many checks were well and the lines of those that were not."""
    done = subprocess.run(
        [str(KIT / "run"), base_url],
        env={**os.environ, "KIT_HOME": str(kit_home)},
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=420,
    )
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith("FAIL")]
    if done.returncode and not failed:
        failed = [f"the kit ended with {done.returncode}: {done.stderr[-2000:]}"]
    return sum(line.startswith("ok ") for line in lines), failed


def test_clients_pass_without_the_sidecar(kit_home: Path, upstream: str) -> None:
    """The yardstick: where this fails, the kit or the machine is at fault."""
    assert (CHECKS, []) == verdict(kit_home, f"{upstream}/v1")


def test_clients_pass_through_the_sidecar(kit_home: Path, sidecar: SidecarProcess) -> None:
    """An app that changes its base URL notices nothing, with redaction or without."""
    well, failed = verdict(kit_home, sidecar.base_url)

    assert sidecar.process.poll() is None, sidecar.log()[-4000:]
    assert ([], CHECKS) == (failed, well), sidecar.log()[-4000:]
