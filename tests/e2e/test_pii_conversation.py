"""openai-python, unmodified, in a conversation full of personal data: the provider sees none of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.wire import sidecar_for, threaded_simulator

pytestmark = pytest.mark.e2e

KIT = Path(__file__).with_name("kit")
POLICY = """
version: 1
policy: default
redaction: {request: {default: restore}, response: {default: redact}}
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""
CANARIES = ("ana.canary", "bob.canary", "529.982.247", "52998224725", "4111 1111", "98765-4321")


def client_python() -> Path:
    """The interpreter that has openai-python: of the kit, wherever it is installed."""
    python = Path(os.environ.get("KIT_HOME", KIT / ".kit")) / "venv/dev/bin/python"
    if not python.exists():
        pytest.skip(f"openai-python is not installed: run {KIT.relative_to(Path.cwd())}/install")
    return python


def test_tool_calling_conversation_shows_the_provider_no_value(tmp_path: Path) -> None:
    """System prompt, words, tool arguments and results, whole and streamed: the application sees values, nobody else."""
    python = client_python()
    with threaded_simulator() as provider:
        config = f'providers: {{main: {{base_url: "{provider.base_url}"}}}}\nlog: {{level: debug, format: json}}\n'
        with sidecar_for(tmp_path, config, POLICY) as sidecar:
            command = [str(python), str(KIT / "pii_conversation.py"), f"http://127.0.0.1:{sidecar.data_port}/v1"]
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
            rows = sidecar.rows(count=8)
            kept = [sidecar.log(), repr(rows), sidecar.admin("/metrics").body.decode()]
            spool = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
            kept += [path.read_bytes().decode("latin-1") for path in spool]

        assert (0, "ok\n") == (done.returncode, done.stdout), done.stderr
        journal = [entry.body.decode() for entry in provider.entries]
    assert 8 == len(journal) == len(rows)
    assert all("[EMAIL-1]" in body for body in journal)
    assert not [(value, text[:200]) for value in CANARIES for text in (*journal, *kept) if value in text]
