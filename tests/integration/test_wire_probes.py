"""Probes tell the truth while the event loop is busy, and readiness follows the policy: at once for what is ours,
settled for what depends on others.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.sidecar_process import ROOT
from tests.support.simulator import refused_origin
from tests.support.wire import Sidecar, ask, chat, eventually, request, serving, threaded_simulator, write_files

pytestmark = pytest.mark.integration

TROUBLED = "tests.support.troubled_sidecar"
POLICY = """
version: 1
policy: default
routes: [{name: fast, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


def config(url: str) -> str:
    return f'providers: {{main: {{base_url: "{url}"}}}}\n'


def timed(sidecar: Sidecar, path: str) -> tuple[int, float]:
    began_s = time.monotonic()
    status = ask(sidecar.admin_port, request("GET", path)).status
    return status, time.monotonic() - began_s


def test_probes_answer_while_the_loop_is_held(tmp_path: Path) -> None:
    """A second of computing must not look like death to the kubelet, which waits one second (I11)."""
    write_files(tmp_path, config(f"{refused_origin()}/v1"), {"default.yaml": POLICY})
    with serving(tmp_path, {"TROUBLE_S": "1.5"}, module=TROUBLED) as sidecar:
        sidecar.signal(signal.SIGUSR1)
        began_s = time.monotonic()
        timed(sidecar, "/livez")
        answers = [timed(sidecar, path) for _ in range(3) for path in ("/livez", "/readyz", "/startupz")]
        asking_s = time.monotonic() - began_s
        _, held_s = timed(sidecar, "/health")

        assert {200} == {status for status, _ in answers}
        assert asking_s < 1.2, "the loop was free again before all probes were asked"
        assert held_s > 0.05, "the loop was not held"
        assert statistics.median(took_s for _, took_s in answers) < 0.1
        eventually(lambda: sidecar.metric("readygate_loop_stalls_total") >= 1, "the stall was not counted")
        assert "degraded" == sidecar.health()["components"]["event_loop"]["state"]
        assert '"loop_stalled"' in sidecar.log()


@pytest.mark.slow
def test_loop_that_is_stuck_fails_liveness_and_recovers(tmp_path: Path) -> None:
    """Five seconds without a beat is no longer busy (LC-07)."""
    write_files(tmp_path, config(f"{refused_origin()}/v1"), {"default.yaml": POLICY})
    with serving(tmp_path, {"TROUBLE_S": "8"}, module=TROUBLED) as sidecar:
        sidecar.signal(signal.SIGUSR1)
        began_s = time.monotonic()
        eventually(lambda: sidecar.status("/livez") == 503, "a stuck loop passes for live", 8)

        assert 4.5 < time.monotonic() - began_s < 7
        assert 503 == sidecar.status("/readyz")
        eventually(lambda: sidecar.status("/livez") == 200, "the loop turns again and is still called dead", 8)


def test_dead_writer_thread_fails_liveness(tmp_path: Path) -> None:
    """Rows could be promised and never be safe again: a restart is the cure (LC-07)."""
    text = "audit: {store: 'sqlite:///audit.db', spool: spool, durability: fsync}\n"
    with threaded_simulator() as provider:
        write_files(tmp_path, config(provider.base_url) + text, {"default.yaml": POLICY})
        with serving(tmp_path, module=TROUBLED) as sidecar:
            assert 200 == sidecar.ask(chat()).status
            assert 200 == sidecar.status("/livez")
            sidecar.signal(signal.SIGUSR2)

            eventually(lambda: sidecar.status("/livez") == 503, "a dead writer passes for live")
            assert b"spool writer is dead" in sidecar.admin("/livez").body
            sidecar.process.kill()


def test_readiness_follows_a_route_after_it_has_settled(tmp_path: Path) -> None:
    """An open breaker takes the pod out only when it lasts, and a target that may be tried again brings it back."""
    policy = POLICY + "readiness: {require: [policy, spool, {route: fast, healthy: 1}], settle: 400ms}\n"
    write_files(tmp_path, config(f"{refused_origin()}/v1"), {"default.yaml": policy})
    with serving(tmp_path) as sidecar:
        assert 200 == sidecar.status("/readyz")

        def fail_until_open() -> float:
            for _ in range(20):
                if sidecar.ask(chat()).error["code"] == "all_targets_unavailable":
                    return time.monotonic()
            raise AssertionError("the breaker did not open")

        opened_s = fail_until_open()
        first = sidecar.admin("/readyz")
        eventually(lambda: sidecar.status("/readyz") == 503, "the required route is down and nobody says so", 3)
        missing = sidecar.admin("/readyz").json().get("missing")
        turned_s = time.monotonic()

        assert 200 == first.status
        assert turned_s - opened_s >= 0.3
        assert ["route:fast (0 of 1 healthy)"] == missing or ["settling"] == missing
        assert 200 == sidecar.status("/livez")
        eventually(lambda: sidecar.status("/readyz") == 200, "no traffic, so nobody would ever find out", 5)


def test_readiness_without_such_a_rule_ignores_providers(tmp_path: Path) -> None:
    """In a native sidecar our readiness is the pod's: what is away elsewhere must not take the app out (LC-06)."""
    write_files(tmp_path, config(f"{refused_origin()}/v1"), {"default.yaml": POLICY})
    with serving(tmp_path) as sidecar:
        for _ in range(8):
            sidecar.ask(chat())

        assert "failed" == sidecar.health()["components"]["provider:main"]["state"]
        assert [200, 200] == [sidecar.status("/readyz"), sidecar.status("/livez")]


def test_probe_is_not_ready_at_once_after_a_signal(tmp_path: Path) -> None:
    """Traffic has to go elsewhere before the door closes (LC-01), and the probe says live to the end."""
    write_files(
        tmp_path, config(f"{refused_origin()}/v1"), {"default.yaml": POLICY}, "drain: {grace: 1s, deadline: 3s}"
    )
    with serving(tmp_path) as sidecar:
        sidecar.signal()
        began_s = time.monotonic()
        eventually(lambda: sidecar.status("/readyz") == 503, "still ready after SIGTERM", 1)

        assert time.monotonic() - began_s < 0.3
        assert ["draining"] == sidecar.admin("/readyz").json()["missing"]
        assert 200 == sidecar.status("/livez")
        assert 0 == sidecar.wait()


def test_probes_answer_during_a_slow_start(tmp_path: Path) -> None:
    """Going through a spool after a crash may take long: live, not started, not ready (LC-05)."""
    write_files(tmp_path, config(f"{refused_origin()}/v1"), {"default.yaml": POLICY})
    port = int(refused_origin().rpartition(":")[2])
    file = tmp_path / "config.yaml"
    file.write_text(file.read_text().replace("admin: {port: 0}", f"admin: {{port: {port}}}"))
    script = (
        "import sys, time, proxy.app.record as app\n"
        "real = app.open_spool\n"
        "app.open_spool = lambda audit: (time.sleep(2.0), real(audit))[1]\n"
        "from proxy.cli import main\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", script, "serve", "-c", str(file), "--simulate", "never"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ) as process:
        slow = Sidecar(process, tmp_path, 0, port)  # type: ignore[arg-type]  # its output is not read
        try:
            eventually(lambda: slow.status("/livez") == 200, "no probe is answered while the spool is read", 10)
            during = [slow.status(path) for path in ("/startupz", "/readyz", "/livez")]
            eventually(lambda: slow.status("/readyz") == 200, "never ready", 10)
        finally:
            process.terminate()

    assert [503, 503, 200] == during


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\r\n\r\n", b"GET /nothing HTTP/1.1\r\nBad Header\r\nAuthorization: Bearer sk-x\r\n\r\n"]
)
def test_garbage_on_the_admin_port_is_answered_without_repeating_it(tmp_path: Path, data: bytes) -> None:
    """What is not HTTP may hold a key; it comes back to nobody and is logged nowhere."""
    write_files(tmp_path, config(f"{refused_origin()}/v1"), {"default.yaml": POLICY})
    with serving(tmp_path) as sidecar:
        answer = ask(sidecar.admin_port, data)

        assert 400 == answer.status
        assert {"message", "type", "param", "code"} <= set(answer.error)
        assert b"sk-x" not in answer.body
        assert "sk-x" not in sidecar.log()
        assert 200 == sidecar.status("/livez")


def test_probes_answer_beside_hundreds_of_silent_connections(tmp_path: Path) -> None:
    """Whoever opens connections and says nothing gives way to whoever asks."""
    write_files(tmp_path, config(f"{refused_origin()}/v1"), {"default.yaml": POLICY})
    with serving(tmp_path) as sidecar:
        silent = [socket.create_connection(("127.0.0.1", sidecar.admin_port), timeout=2) for _ in range(300)]
        try:
            silent[-1].sendall(b"GET /livez HTT")
            answers = [timed(sidecar, path) for path in ("/livez", "/readyz", "/health")]
        finally:
            for sock in silent:
                sock.close()

        assert {200} == {status for status, _ in answers}
        assert max(took_s for _, took_s in answers) < 1.0


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGHUP, signal.SIGTERM, signal.SIGHUP, signal.SIGINT],
        [signal.SIGINT, signal.SIGTERM, signal.SIGTERM],
    ],
)
def test_any_order_of_signals_ends_in_order(tmp_path: Path, signals: list[int]) -> None:
    """Supervisors and people press everything at once (LC-12): one orderly end, no traceback, every row kept."""
    with threaded_simulator() as provider:
        write_files(tmp_path, config(provider.base_url), {"default.yaml": POLICY}, "drain: {grace: 3s, deadline: 6s}")
        with serving(tmp_path) as sidecar:
            asked = sidecar.ask(chat())
            began_s = time.monotonic()
            for number in signals:
                sidecar.signal(number)
                eventually(lambda: sidecar.process.poll() is not None or sidecar.status("/livez") == 200, "hangs", 2)
            code = sidecar.wait()

            assert 0 == code
            assert time.monotonic() - began_s < 3.0, "the second signal did not hurry"
            assert "Traceback" not in sidecar.log()
            assert [asked.get("x-readygate-id")] == [row["id"] for row in sidecar.rows()]


def test_sigterm_while_the_spool_is_read_leaves_it_whole(tmp_path: Path) -> None:
    """A kubelet that gives up on a slow start must not cost a row (LC-12)."""
    with threaded_simulator() as provider:
        write_files(tmp_path, config(provider.base_url), {"default.yaml": POLICY})
        with serving(tmp_path) as sidecar:
            asked = sidecar.ask(chat())
            sidecar.process.kill()
            sidecar.process.wait(timeout=5)
        script = (
            "import sys, time, proxy.app.record as app\n"
            "app.open_spool = lambda audit: (print('reading', flush=True), time.sleep(20))\n"
            "from proxy.cli import main\n"
            "sys.exit(main())\n"
        )
        command = [sys.executable, "-c", script, "serve", "-c", str(tmp_path / "config.yaml"), "--simulate", "never"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "reading" in process.stdout.readline()
            process.terminate()
            _, said = process.communicate(timeout=5)
        with serving(tmp_path) as again:
            rows = again.rows(count=1)

    assert "Traceback" not in said
    assert [asked.get("x-readygate-id")] == [row["id"] for row in rows]
