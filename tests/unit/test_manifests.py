"""What deploy/ promises a cluster, checked without one: rendered by kustomize, validated against the API's schemas."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.core.config.load import parse_settings
from proxy.core.config.settings import SecretRef, Settings
from proxy.core.policy.load import parse_policies
from proxy.terms.outcomes import Outcome, Status
from tests.docs.reference_page import metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("dev", "prod", "persistent-spool")
KUBERNETES = "1.33"

Manifest = dict[str, Any]


def tool(name: str) -> str:
    """Return the path of a command that requirements-dev.txt installs, or skip."""
    beside_python = Path(sys.executable).with_name(name)
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make setup-dev")
    return found


@cache
def rendered(overlay: str) -> str:
    command = [tool("kubectl"), "kustomize", str(DEPLOY / "kubernetes" / "overlays" / overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def manifests(overlay: str) -> list[Manifest]:
    return [manifest for manifest in yaml.safe_load_all(rendered(overlay)) if manifest]


def one(overlay: str, *kinds: str, name: str = "") -> Manifest:
    found = [m for m in manifests(overlay) if m["kind"] in kinds and m["metadata"]["name"].startswith(name)]
    assert 1 == len(found), f"expected one {kinds} {name} in {overlay}, found {len(found)}"
    return found[0]


def pod(overlay: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(overlay, "Deployment", "StatefulSet")["spec"]["template"]["spec"]
    return spec


def sidecar(overlay: str) -> dict[str, Any]:
    container: dict[str, Any] = pod(overlay)["initContainers"][0]
    return container


def settings_of(text: str, name: str, folder: Path) -> Settings:
    result = parse_settings(text, name, folder)

    assert [] == [str(problem) for problem in result.problems]
    assert result.settings is not None
    return result.settings


def kubernetes_settings(overlay: str) -> Settings:
    text = one(overlay, "ConfigMap", name="readygate-config")["data"]["config.yaml"]
    return settings_of(text, f"{overlay}/config.yaml", Path("/etc/readygate"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rendered_overlay_passes_the_schemas_without_a_warning(overlay: str, tmp_path: Path) -> None:
    """A kind or field the cluster does not know is a typo; the validator only warns about unknown kinds, so warnings count."""
    file = tmp_path / "all.yaml"
    file.write_text(rendered(overlay))

    done = subprocess.run(
        [tool("kubernetes-validate"), "--strict", "-k", KUBERNETES, str(file)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )

    report = done.stdout + done.stderr
    assert 0 == done.returncode, report
    assert len(manifests(overlay)) == report.count("INFO"), report
    assert "WARN" not in report


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_sidecar_is_native_and_started_before_the_app(overlay: str) -> None:
    """Kubernetes starts the app only after the start-up probe, and ends the sidecar only after the app (LC-16)."""
    container = sidecar(overlay)

    assert "readygate" == container["name"]
    assert "Always" == container["restartPolicy"]
    assert "/startupz" == container["startupProbe"]["httpGet"]["path"]
    assert "/livez" == container["livenessProbe"]["httpGet"]["path"]
    assert "/readyz" == container["readinessProbe"]["httpGet"]["path"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_reach_the_admin_port_from_outside_the_pod(overlay: str) -> None:
    """The kubelet asks the pod's address: a probe port on loopback would restart the sidecar for ever (LC-16)."""
    settings = kubernetes_settings(overlay)
    ports = {port["name"]: port["containerPort"] for port in sidecar(overlay)["ports"]}

    assert {"rg-admin": settings.server.admin.port} == ports
    assert "0.0.0.0" == settings.server.admin.host
    assert {"rg-admin"} == {
        sidecar(overlay)[f"{p}Probe"]["httpGet"]["port"] for p in ("startup", "liveness", "readiness")
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_data_port_stays_on_the_pods_loopback(overlay: str) -> None:
    """Without caller keys only the pod's own app may use the provider keys."""
    settings = kubernetes_settings(overlay)
    environment = {row["name"]: row["value"] for row in pod(overlay)["containers"][0]["env"]}

    assert "127.0.0.1" == settings.server.data.host
    assert f"http://127.0.0.1:{settings.server.data.port}/v1" == environment["OPENAI_BASE_URL"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_grace_period_outlasts_the_drain(overlay: str) -> None:
    """SIGKILL before the drain's deadline would cut streams and leave rows to the next start (LC-16)."""
    settings = kubernetes_settings(overlay)

    assert pod(overlay)["terminationGracePeriodSeconds"] >= settings.server.drain_deadline_s + 5


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_meets_the_restricted_standard(overlay: str) -> None:
    """The namespace enforces Pod Security `restricted`; what breaks it would not be admitted (LC-16)."""
    spec = pod(overlay)

    assert "restricted" == one(overlay, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert "RuntimeDefault" == spec["securityContext"]["seccompProfile"]["type"]
    assert not spec["automountServiceAccountToken"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        context = container["securityContext"]
        assert context["runAsUser"] > 10_000
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert ["ALL"] == context["capabilities"]["drop"]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_an_environment_or_a_config_map(overlay: str) -> None:
    """Environments show in `kubectl describe`, crash dumps and child processes; secret files do not, and they rotate (LC-16)."""
    spec = pod(overlay)
    settings = kubernetes_settings(overlay)
    references = [provider.api_key for provider in settings.providers.values()]
    references += [settings.admin_token, settings.audit.store if isinstance(settings.audit.store, SecretRef) else None]
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["initContainers"][0]["volumeMounts"]}
    secrets = next(volume for volume in spec["volumes"] if volume["name"] == "secrets")

    assert "env" not in spec["initContainers"][0]
    assert "envFrom" not in spec["initContainers"][0]
    assert [] == [row for row in spec["containers"][0]["env"] if "valueFrom" in row]
    assert 0o440 == secrets["secret"]["defaultMode"]
    for reference in references:
        if reference is not None:
            assert reference.file is not None
            assert Path(mounts["secrets"]) == reference.file.parent


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_spool_is_on_a_volume_that_can_hold_it(overlay: str) -> None:
    """Rows that wait for their store must survive a restart of the container, and fit (LC-16)."""
    spec = pod(overlay)
    settings = kubernetes_settings(overlay)
    mount = next(mount for mount in spec["initContainers"][0]["volumeMounts"] if mount["name"] == "spool")
    by_name = {volume["name"]: volume for volume in spec["volumes"]}
    claims = {
        claim["metadata"]["name"]: claim
        for claim in one(overlay, "Deployment", "StatefulSet")["spec"].get("volumeClaimTemplates", [])
    }

    assert settings.audit.spool.is_relative_to(mount["mountPath"])
    assert not mount.get("readOnly", False)
    if overlay == "persistent-spool":
        assert "2Gi" == claims["spool"]["spec"]["resources"]["requests"]["storage"]
        assert "spool" not in by_name
    else:
        assert settings.audit.spool_max_bytes < 1280 * 2**20
        assert "1280Mi" == by_name["spool"]["emptyDir"]["sizeLimit"]


def test_config_changes_roll_the_pods_and_policy_changes_do_not() -> None:
    """config.yaml is read once, so its name carries a hash; policies are reloaded in place, so theirs must not."""
    names = {manifest["metadata"]["name"] for manifest in manifests("prod") if manifest["kind"] == "ConfigMap"}

    assert "readygate-policies" in names
    assert "readygate-config" not in names
    assert any(name.startswith("readygate-config-") for name in names)


DEPLOYED = {
    "image": (DEPLOY / "image/config.yaml", DEPLOY / "image/policies"),
    "compose": (DEPLOY / "compose/config.yaml", DEPLOY / "compose/policies"),
    "kubernetes": (DEPLOY / "kubernetes/base/readygate/config.yaml", DEPLOY / "kubernetes/base/readygate/policies"),
    "kubernetes prod": (DEPLOY / "kubernetes/overlays/prod/config.yaml", DEPLOY / "kubernetes/base/readygate/policies"),
    "kubernetes dev": (DEPLOY / "kubernetes/overlays/dev/config.yaml", DEPLOY / "kubernetes/base/readygate/policies"),
}


@pytest.mark.parametrize(("config", "policies"), DEPLOYED.values(), ids=DEPLOYED)
def test_deployed_config_and_policies_load_without_a_word(config: Path, policies: Path) -> None:
    """What we ship must pass the strict loader that every operator's file has to pass."""
    settings = settings_of(config.read_text(), str(config), config.parent)
    files = [(str(file), file.read_text()) for file in sorted(policies.glob("*.yaml"))]

    result = parse_policies(files, settings, frozenset())

    assert [] == [str(problem) for problem in result.problems]


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())  # noqa: TID251  # not our file format
    return document


def test_compose_sidecar_shares_the_apps_loopback() -> None:
    """The data port has no caller keys: it must be reachable by the app alone, and never be published."""
    services = compose()["services"]

    assert "service:app" == services["readygate"]["network_mode"]
    assert "ports" not in services["readygate"]
    assert ["127.0.0.1:8000:8000", "127.0.0.1:8081:8081"] == services["app"]["ports"]
    assert {"condition": "service_healthy"} == services["readygate"]["depends_on"]["postgres"]
    assert services["readygate"]["read_only"]
    assert ["ALL"] == services["readygate"]["cap_drop"]


def test_compose_services_have_health_checks_and_their_files() -> None:
    """`depends_on: service_healthy` waits for ever on a service without one, and a missing bind mount becomes an empty folder."""
    services = compose()["services"]

    assert [] == [n for n, s in services.items() if "healthcheck" not in s and n not in {"readygate", "prometheus"}]
    for service in services.values():
        for volume in service.get("volumes", []):
            source = str(volume).split(":", 1)[0]
            assert not source.startswith("./") or (DEPLOY / source).exists(), source


def test_compose_stops_later_than_the_drain() -> None:
    """Docker's default of 10 s would kill the sidecar in the middle of its drain."""
    config = DEPLOY / "compose/config.yaml"
    settings = settings_of(config.read_text(), str(config), config.parent)

    assert (
        int(compose()["services"]["readygate"]["stop_grace_period"].removesuffix("s"))
        >= settings.server.drain_deadline_s + 5
    )


def test_image_is_unprivileged_and_knows_its_own_health() -> None:
    """What a runtime reads from the image: user by number, signal, probe without curl, no shell in the entry point."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()

    assert "USER 10001:10001" in lines
    assert "STOPSIGNAL SIGTERM" in lines
    assert 'ENTRYPOINT ["readygate"]' in lines
    assert any('CMD ["readygate", "probe", "--url", "http://127.0.0.1:8081/livez"]' in line for line in lines)
    assert all("--require-hashes" in line for line in lines if "install" in line and "-r " in line)


def test_alert_rules_hold_on_their_own_examples() -> None:
    """An alert that never fires is worse than none: promtool runs each example series through the rules."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    folder = DEPLOY / "prometheus"

    for command in (
        ["check", "rules", "rules.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "rules_test.yml"],
    ):
        done = subprocess.run([promtool, *command], cwd=folder, check=False, capture_output=True, text=True, timeout=60)
        assert 0 == done.returncode, done.stdout + done.stderr


def alert_expressions() -> str:
    document = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())  # noqa: TID251  # not our file format
    return "\n".join(rule["expr"] for group in document["groups"] for rule in group["rules"])


def test_alert_rules_use_words_that_exist() -> None:
    """A metric, status or outcome that was renamed would silence its alert without a trace."""
    expressions = alert_expressions()
    excluded = expressions.split('outcome!~"', 1)[1].split('"', 1)[0].split("|")
    statuses = [part.split('"', 1)[0] for part in expressions.split('status="')[1:]]

    names = {re.sub(r"_bucket$", "", name) for name in re.findall(r"readygate_[a-z_]+", expressions)}

    assert set() == names - set(metrics())
    assert set(excluded) <= set(Outcome)
    assert set(statuses) <= set(Status)
