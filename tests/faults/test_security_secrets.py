"""Keys and personal data stay where they belong; nothing a caller or provider says forges a line or a series
(SE-01, 02, 08, 09, 10, 15).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wire
from tests.support.raw_provider import raw_provider
from tests.support.rawhttp import Answer, Broken, chat_body, raw_chat, raw_request
from tests.support.sidecar import GOOG_KEY, OWN_KEY, Stage, cases, check_refusal, stage

pytestmark = pytest.mark.faults

JSON = b"Content-Type: application/json"
ECHO = "echo_key=1"


def masked(answer: Answer) -> str:
    """Return all of an answer, inflated where it is coded, as text to search."""
    body = answer.body
    if answer.get("content-encoding") == "gzip":
        body = gzip.decompress(body)
    elif answer.get("content-encoding") == "deflate":
        body = zlib.decompress(body)
    return answer.text + body.decode("utf-8", "replace")


# ---------------------------------------------------------------- SE-02: providers that repeat our key


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503, 529])
def test_key_repeated_in_an_error_body_is_masked(brittle: Stage, status: int) -> None:
    """SE-02: "Incorrect API key provided: sk-…" is what OpenAI says, and apps log what they are told."""
    fault = f"X-Sim-Fault: {status}:{ECHO}".encode()
    answer = brittle.ask(raw_chat("x", fault, model=f"s{status % 47}-echo"))
    row = brittle.row(answer)

    assert answer.status >= 400
    assert OWN_KEY not in masked(answer)
    assert "SimulatedOrg42" not in masked(answer)
    assert OWN_KEY not in str(row)
    assert "SimulatedOrg42" not in str(row)


SPOKEN = {
    "passed only": raw_request("GET", "/v1/s40/x", b"X-Sim-Fault: 403:echo_key=1"),
    "error in 200": raw_chat("x", b"X-Sim-Fault: error_in_200:echo_key=1", model="s41-x"),
    "first event": raw_chat("x", b"X-Sim-Fault: error_event:echo_key=1", model="s42-x", stream=True),
    "gzip": raw_chat("x", b"X-Sim-Fault: 400:echo_key=1,encode=gzip", model="s44-x"),
    "deflate": raw_chat("x", b"X-Sim-Fault: 400:echo_key=1,encode=deflate", model="s45-x"),
    "message in a text page": raw_chat("x", b"X-Sim-Fault: 500:echo_key=1,html=1", model="s46-x"),
}  # fmt: skip


@pytest.mark.parametrize("data", cases(SPOKEN))
def test_key_repeated_in_any_other_way_is_masked(brittle: Stage, data: bytes) -> None:
    """SE-02: whatever the wrapping, the key that came back does not go on."""
    answer = tolerant(brittle, data)

    assert OWN_KEY not in answer
    assert "SimulatedOrg42" not in answer


def tolerant(running: Stage, data: bytes) -> str:
    """Ask and return everything that came, also of an answer that broke off."""
    with running.caller(2.0) as caller:
        caller.send(data)
        try:
            return masked(caller.read(data.partition(b" ")[0].decode()))
        except Broken as end:
            return end.data.decode("latin-1")


@pytest.mark.parametrize("shape", ["openai", "openrouter", "vllm"])
def test_key_in_an_error_event_of_a_running_stream_is_masked(brittle: Stage, shape: str) -> None:
    """SE-02: the in-band error is the one place where a provider's words of trouble pass after the commit."""
    fault = f"X-Sim-Fault: error_event:after=3,rate=50,echo_key=1,shape={shape}".encode()
    with brittle.caller(2.0) as caller:
        caller.send(raw_chat("x", fault, model="s43-x", stream=True))
        _, came = caller.ending(2.0)

    assert b"HTTP/1.1 200 OK" == came[:15]
    assert b"[DONE]" not in came
    assert OWN_KEY.encode() not in came
    assert b"SimulatedOrg42" not in came


def test_key_in_a_header_of_the_answer_is_masked(ordinary: Stage) -> None:
    """SE-02: gateways in front of providers put request headers into debug headers."""
    ordinary.provider.script(
        {
            "body": "{}",
            "status": 400,
            "headers": {"x-debug-auth": f"Bearer {OWN_KEY}", "openai-organization": "org-SimulatedOrg42"},
        }
    )
    answer = ordinary.ask(raw_chat("x"))

    assert 400 == answer.status
    assert OWN_KEY not in answer.text
    assert "SimulatedOrg42" not in answer.text


BROTLI = bytes.fromhex(
    "1be900008dd315f3238475cf3ed67daa6f369fdc2e4a49fe46eab0f4d9f23450eebaa02bfa0ba4bb68b7010e66539df8f486d721d8849be00f7dc31f"
    "f20438a7183bd9b143fbf94be4fe2dbaefd9f3fbc48efda9bf7d593d794bfed12c3e4afe32bc8bc82d20665c6941f5cffef17648a3cb648f008bb677"
    "dac2170706651980eda936d1a6e42d6b841102b422e19aec1efd65dbeee72f1e"
)
"""A provider's 401 that repeats OWN_KEY, in brotli."""


@pytest.mark.parametrize(
    "data", [raw_request("GET", "/v1/files", b"Accept-Encoding: br"), raw_chat("x")], ids=["other", "chat"]
)
def test_key_in_an_error_of_a_coding_nobody_here_reads_does_not_pass(tmp_path: Path, data: bytes) -> None:
    """SE-02: the caller's own Accept-Encoding must not be the way to see our key."""
    with raw_provider() as provider:
        config = f"providers: {{main: {{base_url: '{provider.base_url}', api_key: {{env: RG_OWN_KEY}}}}}}"
        head = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Encoding: br\r\n"
        provider.answer(head + b"Content-Length: %d\r\n\r\n" % len(BROTLI) + BROTLI)
        policy = (
            "version: 1\npolicy: any\nroutes: [{match: {models: ['*']}, chain: [{provider: main}], retries: none}]\n"
        )
        with wire.sidecar_for(tmp_path, config, policy, env={"RG_OWN_KEY": OWN_KEY}) as sidecar:
            answer = sidecar.ask(data)

        assert [b"Bearer " + OWN_KEY.encode()] == [v for n, v in provider.seen[-1].headers if n == b"authorization"]
        assert BROTLI not in answer.body


# ---------------------------------------------------------------- SE-09: caller keys


def test_wrong_keys_of_every_kind_get_the_same_refusal(guarded: Stage, caller_key: str) -> None:
    """SE-09: a refusal that differs, or repeats, tells an attacker something."""
    presented = [
        b"", b"Authorization: Bearer sk-wrong-canary", b"Authorization: Bearer " + caller_key[:-1].encode(),
        b"Authorization: Bearer " + caller_key.encode() + b"x", b"Authorization: Bearer " + caller_key.upper().encode(),
        b"Authorization: Bearer " + OWN_KEY.encode(), b"Authorization: Basic " + caller_key.encode(), b"Authorization: Bearer",
        b"Authorization: Bearer " + hashlib.sha256(caller_key.encode()).hexdigest().encode(), b"Authorization: " + caller_key.encode(),
        b"x-api-key: sk-wrong-canary", b"api-key: sk-wrong-canary", b"Authorization: Bearer \xff\xfe",
        b"Authorization: Bearer " + b"a" * 10_000,
    ]  # fmt: skip
    shapes, traces = set(), set[str]()
    for line in presented:
        answer = guarded.refused(
            raw_chat("x", *([line] if line else [])), status=401, code="invalid_api_key", closes=False
        )
        exchange_id = answer.get("x-readygate-id")
        headers = tuple(
            (name, b"" if name in (b"x-readygate-id", b"x-request-id", b"server-timing") else value)
            for name, value in answer.headers
        )
        shapes.add((answer.body.replace(exchange_id.encode(), b""), headers))
        secret = line.rpartition(b" ")[2].decode("latin-1")
        for trace in (secret, hashlib.sha256(secret.encode("latin-1")).hexdigest()) if len(secret) > 8 else ():
            traces.add(trace)
            assert trace not in answer.text
    guarded.row(answer)  # rows arrive in order
    stored = str(guarded.sidecar.rows())

    assert 1 == len(shapes), shapes
    assert not [trace for trace in traces if trace in stored]
    assert "wrong-canary" not in guarded.sidecar.log()
    assert 200 == guarded.ask(raw_chat("x", b"authorization: bearer " + caller_key.encode())).status


@pytest.mark.parametrize(
    ("model", "header"),
    cases(
        {
            f"{model} {name}": (model, f"{name}: {scheme}%b".encode())
            for model in ("gpt-4o-mini", "bare-x", "goog-x")
            for name, scheme in (("Authorization", "Bearer "), ("x-api-key", ""), ("api-key", ""))
        },
    ),
)
def test_caller_key_never_reaches_a_provider(guarded: Stage, caller_key: str, model: str, header: bytes) -> None:
    """I8: the key that opens this sidecar is no business of any provider's, whatever header it came in."""
    answer = guarded.ask(raw_chat("x", header.replace(b"%b", caller_key.encode()), model=model))
    entry = guarded.provider.last

    assert 200 == answer.status
    assert caller_key not in str(entry.headers)


def test_identity_headers_cannot_take_another_apps_place(guarded: Stage, caller_key: str) -> None:
    """The app of a keyed caller is the key's, not what a header says."""
    answer = guarded.ask(raw_chat("x", b"Authorization: Bearer " + caller_key.encode(), b"X-Readygate-App: pii"))
    row = guarded.row(answer)

    assert ("shop", "shop") == (row["app"], row["caller"])


# ---------------------------------------------------------------- SE-10: doors


ADMIN = ["/", "/livez", "/readyz", "/healthz", "/health", "/providers", "/metrics", "/api/v1/summary", "/api/v1/keys", "/debug", "/debug/pprof",
         "/docs", "/openapi.json", "/favicon.ico", "/admin", "/status", "/startupz", "/.env", "/v1/../metrics", "/v1/%2e%2e/metrics", "//metrics",
         "/V1/models"]  # fmt: skip


@pytest.mark.parametrize("path", ADMIN)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_admin_paths_do_not_exist_on_the_data_port(ordinary: Stage, path: str, method: str) -> None:
    """SE-10: the apps' port shows nothing of the operators'."""
    answer = ordinary.refused(raw_request(method, path, body=b"{}" if method == "POST" else b""), status=(400, 404))

    assert "readygate_" not in answer.body.decode()


@pytest.mark.parametrize("path", ["/v1/metrics", "/v1/health", "/v1/livez", "/v1/admin", "/v1/__sim__/journal"])
def test_admin_names_below_v1_are_the_providers_business(ordinary: Stage, path: str) -> None:
    """SE-10: below /v1 nothing is ours but the routes."""
    answer = ordinary.ask(raw_request("GET", path))

    assert b"readygate_" not in answer.body
    assert path == ordinary.provider.last.target


def test_api_of_the_provider_does_not_exist_on_the_admin_port(ordinary: Stage) -> None:
    """SE-10: the admin port is not a second way to a model."""
    asked = ordinary.asked

    assert {404, 405} >= {ordinary.sidecar.status(path) for path in ("/v1/models", "/v1/chat/completions")}
    assert asked == ordinary.asked


def test_admin_port_on_loopback_answers_no_foreign_host(ordinary: Stage) -> None:
    """SE-10: a page in the operator's browser must not read it by DNS rebinding."""
    own = ordinary.sidecar.admin("/metrics").status
    foreign = wire.ask(
        ordinary.sidecar.admin_port, raw_request("GET", "/metrics", b"Connection: close", host=b"evil.example")
    )

    assert 200 == own
    assert foreign.status in (400, 403, 404, 421)


# ---------------------------------------------------------------- SE-08: series


def series(running: Stage) -> set[str]:
    """Return every series of the exposition, without values."""
    lines = running.sidecar.admin("/metrics").body.decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")}


def storm(running: Stage, numbers: range) -> None:
    """Send requests that differ in everything a caller can choose."""
    kinds = (
        lambda n: raw_chat(f"x{n}", f"User-Agent: ua-{n}".encode(), f"X-Readygate-User: u-{n}".encode(), f"X-Readygate-App: app-{n}".encode(), model=f"model-{n}", user=f"user-{n}"),
        lambda n: raw_request("GET", f"/v1/path-{n}", f"Authorization: Bearer key-{n}".encode()),
        lambda n: raw_chat(f"x{n}", f"X-Sim-Fault: 400:code=code-{n},type=type-{n},param=p-{n}".encode(), model=f"bare-{n}"),
        lambda n: raw_request("POST", f"/v1/chat/completions?q={n}", JSON, body=b"{%d" % n),
        lambda n: raw_chat(f"x{n}", f"X-Sim-Speech: served=served-{n}".encode(), model=f"m-{n}"),
    )  # fmt: skip
    with running.caller(30.0) as caller:
        for n in numbers:
            for make in kinds:
                data = make(n)
                caller.send(data)
                caller.read(data.partition(b" ")[0].decode())


def test_number_of_series_does_not_depend_on_what_is_said(ordinary: Stage) -> None:
    """SE-08, I14: a label that callers or providers can fill makes the monitoring fall over."""
    storm(ordinary, range(3))
    before = series(ordinary)
    storm(ordinary, range(3, 200))
    after = series(ordinary)

    assert set() == after - before, sorted(after - before)[:5]


def test_unreadable_heads_make_no_series(ordinary: Stage) -> None:
    """SE-08: requests that never became exchanges count as well."""
    ordinary.refused(raw_request("GET", "/other-0"), status=404)
    ordinary.refused(raw_request("BREW", "/v1/x-0"), status=(400, 405, 501))
    before = series(ordinary)
    for n in range(1, 50):
        ordinary.refused(raw_request("GET", f"/other-{n}"), status=404)
        ordinary.refused(raw_request(f"BREW{n}", f"/v1/x-{n}"), status=(400, 405, 501))

    assert set() == series(ordinary) - before


# ---------------------------------------------------------------- SE-15: log lines


HOSTILE = ['"}', "\\n", "%0a%0d", "%1b[31m", '{"level":"info"}', "\u2028", "\u00e9", "'; drop table audit; --"]


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A sidecar that is at fault for whatever is asked (its provider refuses its key), so that it logs."""
    config = 'providers:\n  shut: {{base_url: "http://127.0.0.1:9/v1"}}\nlog: {{level: debug, format: json}}\n'
    policy = 'version: 1\npolicy: shut\nroutes: [{match: {models: ["*"]}, chain: [{provider: shut}], retries: none}]\n'
    with stage(tmp_path_factory.mktemp("failing"), config=config, policies={"shut.yaml": policy}) as running:
        yield running


def test_nothing_that_is_said_forges_a_log_line(failing: Stage) -> None:
    """SE-15: one record is one parseable line, whatever the fields hold."""
    for _ in range(6):
        failing.ask(raw_chat("x"))  # the breaker opens, and from then on the gateway itself refuses and says so
    said = 0
    for text in HOSTILE:
        raw_text = text.encode()
        target = b"/v1/" + raw_text.replace(b" ", b"%20") + b"?key=sk-query-canary"
        for data in (
            raw_request(
                "GET",
                target,
                b"User-Agent: " + raw_text,
                b"X-Readygate-App: " + raw_text,
                b"X-Readygate-User: " + raw_text,
            ),
            raw_chat(text, b"X-Readygate-Conversation: " + raw_text, model=text, user=text),
        ):
            answer = failing.ask(data)
            said += 1
            check_refusal(answer)
    failing.row(answer)
    lines = [line for line in failing.sidecar.log().split("\n") if line]
    records = [json.loads(line) for line in lines]

    assert all({"ts", "level", "logger", "event"} <= set(record) for record in records)
    assert not [line for line in lines if re.search(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]", line)]
    assert sum(record["event"] == "exchange_refused" for record in records) >= said // 2
    assert "sk-query-canary" not in "".join(lines)


# ---------------------------------------------------------------- SE-01: everything together


PII = ("carla.canary@example.com", "4111 1111 1111 1111", "529.982.247-25")


def test_no_canary_is_found_anywhere_but_where_it_belongs(ordinary: Stage, guarded: Stage, caller_key: str) -> None:
    """SE-01, O4: after all of this, logs, metrics, spool, database and status pages hold no key and no value."""
    prompt = "echo: " + " and ".join(PII)
    app = b"X-Readygate-App: pii"
    answers = [
        ordinary.ask(raw_chat(prompt, app)),
        ordinary.ask(raw_chat(prompt, app, stream=True)),
        ordinary.ask(raw_chat(prompt, app, b"X-Sim-Fault: 400:echo_key=1")),
        ordinary.ask(raw_request("POST", "/v1/chat/completions", JSON, app, body=chat_body(prompt)[:-2])),
        ordinary.ask(raw_chat("x", app, model=PII[0])),
        ordinary.ask(raw_request("GET", f"/v1/files/{PII[0]}?key={OWN_KEY}", app)),
    ]
    guarded.ask(raw_chat(prompt, b"Authorization: Bearer " + caller_key.encode()))
    for answer in answers:
        assert ordinary.row(answer)
    keys = (OWN_KEY, GOOG_KEY, caller_key)
    found = []
    for running in (ordinary, guarded):
        pages = [running.sidecar.admin(path).body for path in ("/metrics", "/health", "/providers", "/")]
        places = {"log": running.sidecar.log().encode(), "pages": b"".join(pages)}
        places |= {
            str(path.relative_to(running.sidecar.folder)): path.read_bytes()
            for path in kept_files(running.sidecar.folder)
        }
        found += [f"{word} in {place}" for place, data in places.items() for word in keys if word.encode() in data]
    held = places_of(ordinary)
    found += [f"{word} in {place}" for place, data in held.items() for word in PII[1:] if word.encode() in data]

    assert [] == found
    assert PII[0] not in ordinary.provider.entries[-6].body.decode()
    assert all(OWN_KEY not in answer.text for answer in answers)


def kept_files(folder: Path) -> list[Path]:
    """Everything the sidecar wrote: spool segments, database with its journal, dead letters."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".yaml"]


def places_of(running: Stage) -> dict[str, bytes]:
    return {str(path.name): path.read_bytes() for path in kept_files(running.sidecar.folder)}


def test_personal_data_in_a_path_or_model_name_is_known_to_be_recorded(ordinary: Stage) -> None:
    """Rows hold the path and the model as they were asked; this test says so, that nobody is surprised."""
    answer = ordinary.ask(raw_request("GET", "/v1/files/file-123?purpose=canary-query"))
    row = ordinary.row(answer)

    assert ("/v1/files/file-123", False) == (row["path"], "canary-query" in str(row))
