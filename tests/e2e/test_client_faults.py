"""Every upstream fault of the table as official clients show it to an app: the status and code of the table, or the answer.

The clients are those of the kit (tests/e2e/kit/README.md); the simulated provider makes the faults.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.simulator import Simulator
from tests.support.upstream_cases import MIDWAY, PLAIN, STREAMED, Case
from tests.support.wire import Sidecar, sidecar_for, threaded_simulator

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KIT = Path(__file__).with_name("kit")
TEXT = "one two three four five six seven eight nine ten"
CASES: dict[str, tuple[bool, Case]] = {
    **{name: (False, case) for name, case in PLAIN.items()},
    **{f"stream-{name}": (True, case) for name, case in STREAMED.items()},
    **{f"midway-{name}": (True, case) for name, case in MIDWAY.items()},
}
MODES = {
    "lone": "chain: [{provider: one, model: M-1}], broken_stream: event",
    "pair": "chain: [{provider: one, model: M-1}, {provider: two, model: M-2}], rescue: resume",
}


def _policy() -> str:
    rows = [
        f"  - {{match: {{models: [{mode}-{number}]}}, {rest.replace('M-', f'{mode}{number}-')}, retries: none, "
        "timeouts: {first_byte: 500ms, idle: 400ms}}\n"
        for mode, rest in MODES.items()
        for number in range(len(CASES))
    ]
    return "version: 1\npolicy: default\nroutes:\n" + "".join(rows)


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        for mode in MODES:
            for number, (_, case) in enumerate(CASES.values()):
                simulator.fault_for_model(f"{mode}{number}-1", case.fault)
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f"""
providers:
  one: {{base_url: "{provider.origin}/one/v1", api_key: {{env: RG_KEY}}, keepalive: 0s}}
  two: {{base_url: "{provider.origin}/two/v1", api_key: {{env: RG_KEY}}}}
"""
    env = {"RG_KEY": "sk-own-0123456789abcdef0123456789"}
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, _policy(), env=env) as running:
        yield running


def _command(language: str) -> tuple[list[str], Path]:
    """The client's command and the folder it runs in; skips where it is not installed."""
    home = Path(os.environ.get("KIT_HOME", KIT / ".kit"))
    if language == "python":
        program, where = home / "venv/dev/bin/python", KIT
        script = KIT / "faults_python.py"
    else:
        where = home / "node/dev"
        program = where / "node_modules/node/bin/node"
        script = where / "faults_node.mjs"
    if not program.exists():
        pytest.skip("the client kit is not installed: tests/e2e/kit/install")
    if language == "node":
        shutil.copy(KIT / "faults_node.mjs", script)
    return [str(program), str(script)], where


def _seen(sidecar: Sidecar, language: str, mode: str) -> dict[str, dict[str, Any]]:
    """What the app sees of each case."""
    cases = [
        {"id": name, "model": f"{mode}-{number}", "content": f"echo: {TEXT}", "stream": is_stream}
        for number, (name, (is_stream, _)) in enumerate(CASES.items())
    ]
    command, where = _command(language)
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{sidecar.data_port}/v1"],
        input=json.dumps(cases), cwd=where, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line.pop("id"): line for line in lines}


@pytest.mark.parametrize("language", ["python", "node"])
def test_app_sees_the_row_of_the_table(sidecar: Sidecar, language: str) -> None:
    """With no other target: the status and code before the first token; after it an exception with the code."""
    seen = _seen(sidecar, language, "lone")
    wrong = {}
    for name, (_, case) in CASES.items():
        if case.status == 200:
            expected: dict[str, Any] = {"raised": "error", "status": 0, "code": case.code}
            assert TEXT.startswith(seen[name]["text"]), name
            assert seen[name]["text"] not in ("", TEXT), name
        else:
            expected = {"text": "", "raised": "status", "status": case.status, "code": case.code}
        if not expected.items() <= seen[name].items():
            wrong[name] = seen[name]

    assert {} == wrong


@pytest.mark.parametrize("language", ["python", "node"])
def test_app_sees_nothing_of_it_with_a_second_target(sidecar: Sidecar, language: str) -> None:
    """Every fault, before the first token or after it, and the app has its whole answer."""
    seen = _seen(sidecar, language, "pair")

    assert {} == {name: got for name, got in seen.items() if (got["text"], got["raised"]) != (TEXT, "")}
