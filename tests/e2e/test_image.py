"""The built image, run as a cluster would: unprivileged, on a read-only root, an app on the same loopback, ended by SIGTERM."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sidecar_process import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.image]

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("IMAGE", "readygate:dev")
APP_IMAGE = os.environ.get("APP_IMAGE", "python:3.12-slim-bookworm")
HARDENED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "256m"]


def podman(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "deploy/image/engine"), "podman", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert not check or 0 == done.returncode, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done


def inside(container: str, *command: str) -> str:
    return podman("exec", container, *command).stdout


def is_healthy(container: str) -> bool:
    return podman("healthcheck", "run", container, check=False).returncode == 0


def is_running(container: str) -> bool:
    return podman("inspect", container, "--format", "{{.State.Running}}").stdout.strip() == "true"


@pytest.fixture(scope="module")
def image() -> str:
    if shutil.which("podman") is None:
        pytest.skip("podman is missing: apt-get install podman buildah runc")
    if podman("image", "exists", IMAGE, check=False).returncode:
        pytest.skip(f"{IMAGE} is not built: make image")
    return IMAGE


@pytest.fixture
def sidecar(image: str) -> Iterator[str]:
    """A healthy container of the image, with a loopback of its own and no other network."""
    name = f"readygate-{uuid.uuid4().hex[:8]}"  # noqa: TID251  # a container's name, not an exchange's id
    podman("run", "--detach", "--name", name, "--network", "none", "--tmpfs", "/tmp", *HARDENED, image)
    try:
        wait_until(lambda: is_healthy(name) or not is_running(name), 30, "the container does not turn healthy")
        assert is_running(name), podman("logs", name).stderr[-3000:]
        yield name
    finally:
        podman("rm", "--force", "--volumes", name)


@pytest.fixture
def app(sidecar: str) -> Iterator[str]:
    """The example app in the sidecar's network, as in a pod."""
    name = f"{sidecar}-app"
    podman(
        *("run", "--detach", "--name", name, "--network", f"container:{sidecar}", *HARDENED, "--user", "10002:10002"),
        *("--volume", f"{ROOT}/deploy/kubernetes/base/app:/app:ro"),
        *("--env", "OPENAI_BASE_URL=http://127.0.0.1:8080/v1", "--env", "OPENAI_API_KEY=held-by-readygate"),
        *(APP_IMAGE, "python", "/app/app.py"),
    )
    try:
        yield name
    finally:
        podman("rm", "--force", name)


def asked(app: str, path: str) -> str:
    """GET a path of the app from inside its container; return the body, or the reason why there is none."""
    program = (
        "import sys, urllib.request, urllib.error\n"
        "try: print(urllib.request.urlopen('http://127.0.0.1:8000' + sys.argv[1], timeout=20).read().decode())\n"
        "except OSError as exc: print('FAILED', exc, getattr(exc, 'read', bytes)().decode()); sys.exit(0)\n"
    )
    return inside(app, "python", "-c", program, path).strip()


def test_app_beside_the_container_gets_an_answer(app: str, sidecar: str) -> None:
    """The whole integration: a base URL on the shared loopback, nothing else."""
    wait_until(lambda: asked(app, "/healthz") == "ok", 15, "the example app does not start")

    answer = asked(app, "/?ask=hello")

    assert answer
    assert not answer.startswith("FAILED"), answer + podman("logs", sidecar).stderr[-3000:]


def test_process_has_no_privileges(sidecar: str) -> None:
    """What a break-in would find: a user without name rights, no capability, no way to gain any."""
    lines = inside(sidecar, "cat", "/proc/1/status").splitlines()
    status = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}

    assert ["10001"] * 4 == status["Uid"]
    assert ["10001"] * 4 == status["Gid"]
    assert 0 == int(status["CapEff"][0], 16)
    assert 0 == int(status["CapBnd"][0], 16)
    assert "1" == status["NoNewPrivs"][0]
    assert "2" == status["Seccomp"][0]


def test_only_its_own_folder_is_writable(sidecar: str) -> None:
    """A read-only root keeps the code that runs the code that was built."""
    assert podman("exec", sidecar, "touch", "/opt/readygate/x", check=False).returncode
    assert podman("exec", sidecar, "touch", "/etc/readygate/x", check=False).returncode
    inside(sidecar, "touch", "/var/lib/readygate/x")


def test_image_carries_no_installer(sidecar: str) -> None:
    """The environment holds what the sidecar imports and nothing that could fetch more."""
    program = "import importlib.util as u, sys; print([m for m in ('pip', 'setuptools') if u.find_spec(m)], sys.prefix)"

    assert "[] /opt/readygate" == inside(sidecar, "/opt/readygate/bin/python", "-c", program).strip()


def test_labels_name_version_and_revision(image: str) -> None:
    """An image found on a node must lead back to its source."""
    labels = json.loads(podman("image", "inspect", image, "--format", "{{json .Labels}}").stdout)

    assert "readygate" == labels["org.opencontainers.image.title"]
    assert labels["org.opencontainers.image.version"][0].isdigit()
    assert labels["org.opencontainers.image.revision"]


def test_sigterm_drains_and_exits_zero(sidecar: str) -> None:
    """The kubelet sends SIGTERM to process 1: it must be ours, end in time and in order."""
    began_s = time.monotonic()

    podman("stop", "--time", "40", sidecar)

    assert "0" == podman("inspect", sidecar, "--format", "{{.State.ExitCode}}").stdout.strip()
    assert time.monotonic() - began_s < 30
