"""Callers with JSON Web Tokens: whose they are, and everything that must not open the door."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.refusals import check
from tests.support.sidecar_process import ROOT
from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, caller, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

ISSUER = "https://login.example.com"
POLICY = "version: 1\npolicy: rest\nroutes: [{match: {models: ['*']}, chain: [{provider: main}], retries: none}]\n"
ENGINEERS = POLICY.replace("policy: rest", "policy: engineers\napplies_to: {groups: ['eng-*']}")
OPS = POLICY.replace("policy: rest", "policy: ops\napplies_to: {groups: [ops, dba]}")
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def row(key: Any, name: str) -> dict[str, Any]:
    made = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    algorithm: Any = next((found for kind, found in made.items() if isinstance(key, kind)), OKPAlgorithm)
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": name, "use": "sig"}


KEYS = [row(RSA_KEY, "r1"), row(EC_KEY, "e1"), row(ED_KEY, "d1")]


def token(key: Any = RSA_KEY, name: str | None = "r1", algorithm: str = "RS256", lacks: str = "", **claims: Any) -> str:
    now_s = int(time.time())  # noqa: TID251 - tokens live on the wall clock
    said = {"iss": ISSUER, "aud": "readygate", "exp": now_s + 300, "azp": "shop", "sub": "ana", "groups": [], **claims}
    said.pop(lacks, None)
    return jwt.encode(said, key, algorithm, headers={} if name is None else {"kid": name})


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


def config(provider: Simulator, jwks: str) -> str:
    return f"""
providers: {{main: {{base_url: "{provider.base_url}"}}}}
jwt: {{issuer: "{ISSUER}", audience: [readygate, other], jwks: {jwks}, claims: {{app: azp, groups: groups}}, leeway: 2s}}
"""


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    folder: Path = tmp_path_factory.mktemp("tokens")
    (folder / "jwks.json").write_text(json.dumps({"keys": KEYS}))
    policies = {"rest.yaml": POLICY, "engineers.yaml": ENGINEERS, "ops.yaml": OPS}
    with sidecar_for(folder, config(provider, "{file: jwks.json}"), policies) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


def asked(text: str, **headers: str) -> bytes:
    return chat(headers={"Authorization": f"Bearer {text}", **headers})


@pytest.mark.parametrize(("key", "name", "algorithm"), [(RSA_KEY, "r1", "RS256"), (EC_KEY, "e1", "ES256"), (ED_KEY, "d1", "EdDSA")])  # fmt: skip
def test_good_token_names_app_user_and_policy(
    sidecar: Sidecar, provider: Simulator, key: Any, name: str, algorithm: str
) -> None:
    """Claims say who calls, headers cannot; the token goes no further."""
    text = token(key, name, algorithm, groups=["x", "eng-search"])
    answer = sidecar.ask(asked(text, **{"x-readygate-app": "other", "x-readygate-user": "eve"}))

    assert 200 == answer.status
    seen = sidecar.row(answer.get("x-readygate-id"))
    assert ("shop", "ana", "jwt", "engineers") == (seen["app"], seen["user_id"], seen["caller"], seen["policy"])
    assert text not in str(provider.last.headers) + sidecar.log() + str(seen)


@pytest.mark.parametrize(
    ("groups", "policy"),
    [([], "rest"), (["eng-a"], "engineers"), (["eng-a", "ops"], "ops"), ("dba", "ops"), ({"a": 1}, "rest"), ([1, "dba"], "ops")],
)  # fmt: skip
def test_groups_choose_the_policy(sidecar: Sidecar, groups: object, policy: str) -> None:
    """A name beats a pattern; what is no list of names is no group."""
    answer = sidecar.ask(asked(token(groups=groups)))

    assert policy == sidecar.row(answer.get("x-readygate-id"))["policy"]


def test_groups_of_the_token_are_in_the_row_and_choose_again_when_it_is_explained(sidecar: Sidecar) -> None:
    """A past exchange is told by the groups its caller had then."""
    answer = sidecar.ask(asked(token(groups=["x", "dba", "eng-a"])))
    row = sidecar.row(answer.get("x-readygate-id"))
    config = str(sidecar.folder / "config.yaml")
    asking = [sys.executable, "-m", "proxy", "explain", "-c", config, "--format", "json", "--request-id", row["id"]]
    told = json.loads(subprocess.run(asking, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout)

    assert (["x", "dba", "eng-a"], "ops") == (json.loads(row["caller_groups"]), row["policy"])
    assert ["ops"] == [step["rule"].split()[1].rstrip(":") for step in told["steps"] if step["verdict"] == "applies"]


def bad_tokens() -> dict[str, str]:
    now_s = int(time.time())  # noqa: TID251 - tokens live on the wall clock
    public = RSA_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    good = token()
    head, body, signature = good.split(".")
    with_secret = jwt.api_jws.PyJWS()
    return {
        "expired": token(exp=now_s - 60),
        "not yet": token(nbf=now_s + 60),
        "no end": token(lacks="exp"),
        "other audience": token(aud="somebody"),
        "no audience": token(lacks="aud"),
        "other issuer": token(iss="https://evil.example.com"),
        "no app": token(lacks="azp"),
        "app is no text": token(azp=["shop"]),
        "alg none": jwt.encode({"azp": "shop"}, None, "none", headers={"kid": "r1"}),
        "public key as secret": with_secret.encode(
            json.dumps(jwt.decode(good, options={"verify_signature": False})).encode(), _secret(public), "HS256", {"kid": "r1"}
        ),
        "other key, same name": token(OTHER_RSA_KEY),
        "key of another kind": token(EC_KEY, "r1", "ES256"),
        "longer hash": token(RSA_KEY, "r1", "RS512"),
        "unknown key": token(OTHER_RSA_KEY, "r9"),
        "no key named": token(name=None),
        "signature cut": good[:-4],
        "signature of nothing": f"{head}.{body}.",
        "body swapped": f"{head}.{token(azp='admin').split('.')[1]}.{signature}",
        "too long": token(more="x" * 9000),
        "rubbish": "a.b.c",
        "deep head": f"{_segment(b'[' * 5000)}.{body}.{signature}",
        "deep body": with_secret.encode(b'{"a":' * 1000, RSA_KEY, "RS256", {"kid": "r1"}),
        "end is text": token(exp="soon"),
        "end is everything": token(exp=[1]),
    }  # fmt: skip


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _secret(pem: bytes) -> bytes:
    """The public key as an attacker would use it: bytes that the library does not recognise as a key."""
    return pem.replace(b"-----BEGIN PUBLIC KEY-----", b"-----BEGIN  PUBLIC KEY-----")


def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(sidecar: Sidecar, provider: Simulator) -> None:
    """Nothing can be learnt from a refusal, and nothing reaches a provider."""
    for what, text in bad_tokens().items():
        answer = sidecar.ask(asked(text), 10.0)

        assert 401 == answer.status, what
        error = check(answer, 401, "invalid_api_key", "client", "no")
        assert "The API key is missing or not valid here." == error["message"], what
    assert [] == provider.entries


def test_a_token_ends_on_an_open_connection(sidecar: Sidecar) -> None:
    """What was remembered of a head lives no longer than its token."""
    text = token(exp=int(time.time()))  # noqa: TID251 - within the leeway of 2 s
    with caller(sidecar.data_port) as wire:

        def status() -> int:
            wire.send(asked(text))
            return wire.message().status

        assert 200 == status()
        eventually(lambda: status() == 401, "the token does not end")


class _KeyServer:
    """Serves a key set that tests change, and counts who asks."""

    def __init__(self) -> None:
        self.rows = KEYS[:1]
        self.asked = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked += 1
                body = json.dumps({"keys": server.rows}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/jwks.json"


def test_new_key_is_fetched_for_its_first_token_and_unknown_ones_cost_one_fetch(
    provider: Simulator, tmp_path: Path
) -> None:
    """An issuer that changes keys loses nobody; somebody who invents key names cannot make us hammer it."""
    server = _KeyServer()
    with sidecar_for(tmp_path, config(provider, f'{{url: "{server.url}"}}'), POLICY) as running:
        assert 200 == running.ask(asked(token())).status
        assert 1 == server.asked
        server.rows = [row(OTHER_RSA_KEY, "r2")]

        assert 200 == running.ask(asked(token(OTHER_RSA_KEY, "r2"))).status
        assert 401 == running.ask(asked(token())).status, "a key that is gone still opens the door"
        assert [401] * 5 == [running.ask(asked(token(RSA_KEY, f"made-up-{n}"))).status for n in range(5)]
        assert 2 == server.asked
        server.http.shutdown()
        assert 200 == running.ask(asked(token(OTHER_RSA_KEY, "r2"))).status


def component(running: Sidecar) -> dict[str, Any]:
    health = running.admin("/health").json()
    found: dict[str, Any] = health["components"]["jwt_keys"]
    assert found["state"] == "ok" or health["status"] == "degraded"
    return found


def test_keys_that_cannot_be_used_show_before_the_last_good_ones_end(provider: Simulator, tmp_path: Path) -> None:
    """The last good keys stay, so no caller would notice: health, metrics, log and doctor say it."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": KEYS}))
    with sidecar_for(tmp_path, config(provider, "{file: jwks.json}"), POLICY) as running:
        assert ("ok", 3) == (component(running)["state"], component(running)["keys"])
        path.write_text('{"keys": []}')
        eventually(lambda: component(running)["state"] == "degraded", "nobody says so")
        shown = component(running)
        assert "the last good keys stay: ValueError: no usable key" == shown["reason"]
        assert 200 == running.ask(asked(token())).status
        assert 1.0 <= running.metric("readygate_caller_key_source_refused_total", source="jwt_keys")
        assert 0.0 == running.metric("readygate_component_ok", component="jwt_keys")
        doctor = [sys.executable, "-m", "proxy", "doctor", "-c", str(tmp_path / "config.yaml"), "--format", "json"]
        done = subprocess.run(doctor, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        told = next(one for one in json.loads(done.stdout)["findings"] if one["name"] == "jwt keys")
        assert ("bad", "no usable key") == (told["state"], told["text"].rpartition(": ")[2])
        path.write_text(json.dumps({"keys": KEYS[:1]}))
        eventually(lambda: (component(running)["state"], component(running)["keys"]) == ("ok", 1), "it does not end")


def test_a_process_that_never_got_keys_says_that_no_token_opens_it(provider: Simulator, tmp_path: Path) -> None:
    """Every token is refused, and the reason is not the tokens."""
    with sidecar_for(tmp_path, config(provider, "{file: nowhere.json}"), POLICY) as running:
        assert 401 == running.ask(asked(token())).status
        assert ("failed", 0) == (component(running)["state"], component(running)["keys"])
        assert "No such file" in component(running)["reason"]
