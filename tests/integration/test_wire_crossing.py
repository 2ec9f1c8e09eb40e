"""What crosses to a provider and what stays here, who is named in the row, and one connection used many times."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, caller, chat, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

MAIN_KEY = "sk-main-AbCdEfGh0123456789XyZ0123456789"
HOP_BY_HOP = (
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
)

POLICY = """
version: 1
policy: default
routes:
  - {name: free, match: {models: ["free"]}, chain: [{provider: open, model: open-model}], retries: none}
  - {name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = f"""
providers:
  main: {{base_url: "{provider.base_url}", api_key: {{env: MAIN_KEY}}}}
  open: {{base_url: "{provider.origin}/open/v1"}}
"""
    with sidecar_for(tmp_path_factory.mktemp("sidecar"), config, POLICY, env={"MAIN_KEY": MAIN_KEY}) as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(provider: Simulator) -> None:
    provider.reset()


# ---------------------------------------------------------------- what reaches the provider


def test_our_request_headers_and_the_callers_key_stay_here(sidecar: Sidecar, provider: Simulator) -> None:
    """x-readygate-* are for us; the caller's credential is replaced by ours."""
    sidecar.ask(
        chat(
            headers={
                "x-readygate-app": "someone",
                "X-ReadyGate-User": "u1",
                "x-readygate-conversation": "c1",
                "x-readygate-anything": "else",
                "Authorization": "Bearer callers-own",
                "X-Api-Key": "callers-own",
                "OpenAI-Organization": "org-callers",
                "X-Stainless-Lang": "python",
            }
        )
    )

    entry = provider.last
    assert [] == [name for name, _ in entry.headers if name.lower().startswith("x-readygate")]
    assert [f"Bearer {MAIN_KEY}"] == entry.header_values("authorization")
    assert "callers-own" not in str(entry.headers)
    assert "org-callers" not in str(entry.headers)
    assert ["python"] == entry.header_values("x-stainless-lang")
    assert [f"127.0.0.1:{provider.port}"] == entry.header_values("host")


def test_callers_key_passes_to_a_provider_that_has_none_of_ours(sidecar: Sidecar, provider: Simulator) -> None:
    """Without a configured key the app's own works as before."""
    sidecar.ask(chat(model="free", headers={"Authorization": "Bearer callers-own"}))

    assert ["Bearer callers-own"] == provider.last.header_values("authorization")


def test_hop_by_hop_headers_do_not_cross(sidecar: Sidecar, provider: Simulator) -> None:
    """They belong to one connection, and so do those that Connection names (HT-06)."""
    sidecar.ask(
        chat(
            headers={
                "Connection": "keep-alive, X-Private, authorization, content-length",
                "Keep-Alive": "timeout=5",
                "Proxy-Authorization": "Basic eDp5",
                "Proxy-Connection": "keep-alive",
                "TE": "trailers",
                "Trailer": "x",
                "X-Private": "1",
                "X-Public": "2",
            }
        )
    )

    entry = provider.last
    names = {name.lower() for name, _ in entry.headers}
    assert set() == names & {*HOP_BY_HOP, "x-private", "transfer-encoding"}
    assert ["2"] == entry.header_values("x-public")
    assert [f"Bearer {MAIN_KEY}"] == entry.header_values("authorization")
    assert len(entry.body) == int(entry.header("content-length") or -1)


def test_cookies_of_a_provider_are_never_sent_back_for_somebody_else(sidecar: Sidecar, provider: Simulator) -> None:
    """A jar in the gateway would hand one tenant's session to the next (SE-05)."""
    first = sidecar.ask(chat(headers={"x-sim-speech": "set_cookie=session=secret"}))
    sidecar.ask(chat())

    assert 200 == first.status
    assert None is provider.last.header("cookie")


# ---------------------------------------------------------------- who asked


def test_identity_headers_reach_the_row(sidecar: Sidecar) -> None:
    """Without caller keys the app says who it is."""
    answer = sidecar.ask(
        chat(headers={"x-readygate-app": "shop", "x-readygate-user": "ana", "x-readygate-conversation": "c-1"})
    )

    row = sidecar.row(answer.get("x-readygate-id"))
    assert ("shop", "ana", "c-1") == (row["app"], row["user_id"], row["conversation"])


@pytest.mark.parametrize(
    ("fields", "user"),
    [({"user": "u-1"}, "u-1"), ({"safety_identifier": "s-1"}, "s-1"), ({"metadata": {"user_id": "m-1"}}, "m-1"),
     ({"user": "u-1", "safety_identifier": "s-1"}, "s-1"), ({"user": 7}, ""), ({"metadata": "x"}, "")],
)  # fmt: skip
def test_user_of_the_body_reaches_the_row(sidecar: Sidecar, fields: dict[str, object], user: str) -> None:
    """Apps that already name their users to OpenAI need not do it again."""
    answer = sidecar.ask(chat(**fields))

    assert user == sidecar.row(answer.get("x-readygate-id"))["user_id"]


def test_header_beats_body_as_identity(sidecar: Sidecar) -> None:
    """The platform's word counts before the app's."""
    answer = sidecar.ask(chat(headers={"x-readygate-user": "from-header"}, user="from-body"))

    assert "from-header" == sidecar.row(answer.get("x-readygate-id"))["user_id"]


def test_identity_is_bounded_and_clean_in_the_row(sidecar: Sidecar) -> None:
    """A row is shown in terminals and pages: no control characters, no megabytes."""
    answer = sidecar.ask(chat(headers={"x-readygate-user": "x\ty\x7fz" + "l" * 400}))

    user = sidecar.row(answer.get("x-readygate-id"))["user_id"]
    assert len(user) <= 256
    assert user.isprintable()


# ---------------------------------------------------------------- connections


def test_pipelined_requests_are_answered_in_order(sidecar: Sidecar) -> None:
    """Each answer to its own request, one row each (HT-20 in small)."""
    count = 60
    with caller(sidecar.data_port) as wire:
        wire.send(b"".join(chat(f"echo: number {i}", {"x-readygate-conversation": f"pipe-{i}"}) for i in range(count)))
        answers = [wire.message() for _ in range(count)]

    assert [f"number {i}" for i in range(count)] == [a.json()["choices"][0]["message"]["content"] for a in answers]
    rows = sidecar.rows("conversation LIKE 'pipe-%'", count=count)
    assert {f"pipe-{i}" for i in range(count)} == {row["conversation"] for row in rows}
    assert count == len(rows)


def test_smuggled_request_behind_a_refused_one_is_never_routed(sidecar: Sidecar, provider: Simulator) -> None:
    """CL.TE: the connection ends with the refusal (HT-01, HT-04)."""
    with caller(sidecar.data_port) as wire:
        wire.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/files HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        answer = wire.message()
        second = wire.message()

    assert 400 == answer.status
    assert "close" == answer.get("connection")
    assert ("eof", b"") == (second.ended, second.body)
    assert [] == provider.entries


def test_expect_100_continue_is_answered_before_the_body(sidecar: Sidecar) -> None:
    """Large bodies: curl waits a second for it with every large body."""
    with caller(sidecar.data_port) as wire:
        head, _, body = chat("echo: late body", {"Expect": "100-continue"}).partition(b"\r\n\r\n")
        wire.send(head + b"\r\n\r\n")
        interim = wire.message()
        wire.send(body)
        answer = wire.message()

    assert 100 == interim.status
    assert "late body" == answer.json()["choices"][0]["message"]["content"]


def test_http_10_caller_gets_a_close_delimited_stream(sidecar: Sidecar) -> None:
    """No chunks for those who cannot read them."""
    data = chat("echo: old times", stream=True).replace(b"HTTP/1.1", b"HTTP/1.0")
    answer = sidecar.ask(data)

    assert not answer.has("transfer-encoding")
    assert "[DONE]" == answer.events[-1]
    assert "close" == answer.get("connection")
