"""Sending attempts over pooled connections: reuse, staleness, deadlines, and who may abort what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy.core.config.settings import AuthHeader, ProviderKind, ProviderSettings, SecretRef
from proxy.core.policy.model import Timeouts
from proxy.flow.ports import AttemptFailed, Call, CallKind
from proxy.terms.http import RequestHead
from proxy.terms.outcomes import Outcome
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.endpoint import Endpoint
from proxy.upstream.providers import Providers
from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.simulator import black_hole, refused_origin


class NoKeys:
    """No provider has a key."""

    def current(self, provider: str) -> str | None:
        return None

    async def refresh(self, provider: str) -> bool:
        return False

    def mask(self, text: str) -> str:
        return text


class OneKey(NoKeys):
    """Every provider has the key ``k1``."""

    def current(self, provider: str) -> str | None:
        return "k1"


@pytest.fixture
def raw() -> Iterator[RawProvider]:
    with raw_provider() as running:
        yield running


def call(
    *,
    target: bytes = b"/chat/completions",
    model: str = "m",
    authorization: bytes | None = None,
    passes_caller_key: bool = False,
    must_be_fresh: bool = False,
    lasts_s: float = 5.0,
    **timeouts: float,
) -> Call:
    """Return an attempt with a small body; time-outs are one second unless given."""
    fields = {} if authorization is None else {b"authorization": authorization}
    head = RequestHead("POST", b"/v1" + target, "/v1/chat/completions", [], fields)
    limits = Timeouts(**{"connect_s": 1.0, "first_byte_s": 1.0, "idle_s": 1.0, **timeouts})
    deadline_s = time.monotonic() + lasts_s
    kind = CallKind("p", head, target, b"X-A: 1\r\n", model, passes_caller_key=passes_caller_key)
    return Call(kind, b"{}", limits, deadline_s, 1024, must_be_fresh)


def providers(base_url: str, keys: NoKeys | None = None, **fields: Any) -> Providers:
    return Providers({"p": ProviderSettings("p", base_url, **fields)}, keys or NoKeys(), time.monotonic)


async def test_second_attempt_reuses_the_connection(raw: RawProvider) -> None:
    """A handshake per request would cost more than everything else."""
    upstream = providers(raw.base_url)
    first = await upstream.send(call())
    second = await upstream.send(call())

    assert [200, 200] == [first.head.status, second.head.status]
    assert [False, True] == [first.reused_connection, second.reused_connection]
    assert 1 == upstream.open_connections
    await upstream.close()


async def test_fresh_is_fresh(raw: RawProvider) -> None:
    """The repeat after a stale connection must not meet the next stale one."""
    upstream = providers(raw.base_url)
    await upstream.send(call())
    again = await upstream.send(call(must_be_fresh=True))

    assert not again.reused_connection
    await upstream.close()


async def test_idle_connection_past_its_keepalive_is_not_used(raw: RawProvider) -> None:
    """Below the provider's own time-out, so that the race is rare."""
    upstream = providers(raw.base_url, keepalive_s=0.0)
    await upstream.send(call())
    await asyncio.sleep(0.01)

    assert not (await upstream.send(call())).reused_connection
    await upstream.close()


async def test_request_head_holds_host_key_and_one_framing(raw: RawProvider) -> None:
    """Host is the provider's, the key ours, the caller's headers follow."""
    upstream = providers(raw.base_url, OneKey(), headers={"openai-organization": "org-1"})
    await upstream.send(call(authorization=b"Bearer callers", passes_caller_key=True))

    (seen,) = raw.seen
    assert b"POST /v1/chat/completions HTTP/1.1" == seen.first_line
    assert [
        (b"host", b"127.0.0.1:%d" % raw.port), (b"openai-organization", b"org-1"), (b"authorization", b"Bearer k1"),
        (b"X-A", b"1"), (b"content-length", b"2"),
    ] == seen.headers  # fmt: skip
    await upstream.close()


@pytest.mark.parametrize(("passes", "expected"), [(True, ["Bearer callers"]), (False, [])])
async def test_callers_key_passes_only_where_it_may(raw: RawProvider, passes: bool, expected: list[str]) -> None:
    """With caller keys configured, the caller's credential is ours to check and nobody else's to see."""
    upstream = providers(raw.base_url)
    await upstream.send(call(authorization=b"Bearer callers", passes_caller_key=passes))

    assert expected == raw.seen[0].all("authorization")
    await upstream.close()


@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        ([], Outcome.NO_RESPONSE),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"], Outcome.TRUNCATED),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"], Outcome.TRUNCATED),
        ([b"hello\r\n\r\n"], Outcome.BAD_RESPONSE),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"], Outcome.BAD_RESPONSE),
        ([b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"], Outcome.BAD_RESPONSE),
        ([b"HTTP/1.1 200"], Outcome.BAD_RESPONSE),
    ],
)
async def test_broken_answers_are_named(raw: RawProvider, pieces: list[bytes], outcome: Outcome) -> None:
    """Outcomes, never driver exceptions."""
    raw.answer(*pieces, closes=True)
    upstream = providers(raw.base_url)

    with pytest.raises(AttemptFailed) as failed:
        await upstream.send(call())
    assert outcome is failed.value.outcome
    await upstream.close()


async def test_interim_answers_are_passed_over(raw: RawProvider) -> None:
    """103 Early Hints come before the answer and are no answer."""
    raw.answer(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 201 Made\r\ncontent-length: 1\r\n\r\nx")
    upstream = providers(raw.base_url)
    answer = await upstream.send(call())

    assert (201, b"Made", b"x", [(b"content-length", b"1")]) == (
        answer.head.status, answer.head.reason, answer.body, answer.head.headers,
    )  # fmt: skip
    await upstream.close()


async def test_unreachable_and_silent_providers_are_named(raw: RawProvider) -> None:
    """Refused, no handshake, no first byte, no time left: four words for four troubles."""
    raw.answer()
    silent = providers(raw.base_url)
    refused = providers(refused_origin() + "/v1")
    seen = []
    with black_hole() as hole:
        stuck = providers(hole + "/v1")
        for upstream, changes in (
            (refused, {}), (stuck, {"connect_s": 0.1}), (silent, {"first_byte_s": 0.1}),
            (silent, {"lasts_s": 0.3}), (silent, {"lasts_s": -1.0}),
        ):  # fmt: skip
            with pytest.raises(AttemptFailed) as failed:
                await upstream.send(call(**changes))
            seen.append(failed.value.outcome)
            await asyncio.sleep(0)
    for upstream in (silent, refused, stuck):
        await upstream.close()

    assert [
        Outcome.CONNECT_ERROR, Outcome.CONNECT_TIMEOUT, Outcome.TTFB_TIMEOUT, Outcome.TOTAL_TIMEOUT, Outcome.TOTAL_TIMEOUT,
    ] == seen  # fmt: skip


async def test_full_endpoint_refuses_instead_of_waiting_in_silence(raw: RawProvider) -> None:
    """Request 101 of aiohttp's default pool waits for ever; ours is told."""
    raw.answer()
    upstream = providers(raw.base_url, max_connections=1)
    first = asyncio.create_task(upstream.send(call()))  # noqa: TID251 - cancelled below
    await asyncio.sleep(0.05)

    with pytest.raises(AttemptFailed) as failed:
        await upstream.send(call())
    first.cancel()
    await asyncio.wait({first})
    assert Outcome.CONNECT_ERROR is failed.value.outcome
    await upstream.close()


async def test_cancelled_attempt_closes_its_connection(raw: RawProvider) -> None:
    """Nobody pays for tokens that nobody reads."""
    raw.answer()
    upstream = providers(raw.base_url)
    attempt = asyncio.create_task(upstream.send(call()))  # noqa: TID251 - cancelled below
    await asyncio.sleep(0.05)
    attempt.cancel()
    await asyncio.wait({attempt})
    await asyncio.sleep(0.02)

    assert 0 == upstream.open_connections
    await upstream.close()


class Snatching(Endpoint):
    """As soon as a connection is idle the next attempt takes it, and only then the first caller's leaving is heard."""

    snatch: Callable[[], None] | None = None

    def take_back(self, connection: UpstreamConnection) -> None:
        super().take_back(connection)
        snatch, self.snatch = self.snatch, None
        if snatch is not None:
            snatch()


async def test_attempt_cancelled_after_its_answer_does_not_touch_the_next_ones_connection(raw: RawProvider) -> None:
    """The caller left in the very turn in which its answer came; the connection belongs to somebody else by then."""
    upstream = providers(raw.base_url)
    upstream._endpoints["p"] = endpoint = Snatching(ProviderSettings("p", raw.base_url))
    attempts: list[asyncio.Task[Any]] = []

    def snatch() -> None:
        attempts.append(asyncio.create_task(upstream.send(call())))  # noqa: TID251 - awaited below
        asyncio.get_running_loop().call_soon(attempts[0].cancel)

    endpoint.snatch = snatch
    attempts.append(asyncio.create_task(upstream.send(call())))  # noqa: TID251 - awaited below
    await asyncio.wait({attempts[0]}, timeout=1)
    second = attempts[1]
    done, _ = await asyncio.wait({second}, timeout=1.5)
    try:
        assert done, "the second attempt hangs: its connection was aborted and nobody told it"
        assert 200 == second.result().head.status
    finally:
        second.cancel()
        await asyncio.wait({second})
        await upstream.close()


@pytest.mark.parametrize(
    ("fields", "model", "target", "expected"),
    [
        ({}, "m", b"/chat/completions?x=1", b"/v1/chat/completions?x=1"),
        ({"api_version": "2024-10-21"}, "m", b"/chat/completions", b"/v1/deployments/m/chat/completions?api-version=2024-10-21"),
        ({"api_version": "2024-10-21", "deployments": {"m": "mine"}}, "m", b"/chat/completions?x=1",
         b"/v1/deployments/mine/chat/completions?x=1&api-version=2024-10-21"),
        ({"api_version": "2024-10-21"}, "m", b"/chat/completions?api-version=old", b"/v1/deployments/m/chat/completions?api-version=old"),
    ],
)  # fmt: skip
def test_azure_paths_name_the_deployment(fields: dict[str, Any], model: str, target: bytes, expected: bytes) -> None:
    """Azure has the model in the path and the version in the query."""
    kind = ProviderKind.AZURE if fields else ProviderKind.OPENAI
    endpoint = Endpoint(ProviderSettings("p", "http://127.0.0.1:1/v1", kind=kind, **fields))

    assert expected == endpoint.path_for(call(model=model, target=target).kind)


def test_head_follows_the_key() -> None:
    """Rendered once per key; a rotated key is used at once."""
    settings = ProviderSettings("p", "http://127.0.0.1:1/v1", auth_header=AuthHeader("x-goog-api-key", ""))
    endpoint, again = Endpoint(settings), call()
    heads = []
    for key in ("one", "two", None):
        endpoint.take_key(key)
        heads += [endpoint.head_for(again), endpoint.head_for(again)]

    start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:1\r\n"
    end = b"X-A: 1\r\ncontent-length: 2\r\n\r\n"
    one, two = b"x-goog-api-key: one\r\n", b"x-goog-api-key: two\r\n"
    assert [start + key + end for key in (one, one, two, two, b"", b"")] == heads


class Rotating(NoKeys):
    """The key changes when it is asked for anew."""

    key: str | None = None

    def current(self, provider: str) -> str | None:
        return self.key

    async def refresh(self, provider: str) -> bool:
        self.key = "k2"
        return True


async def test_key_that_was_read_anew_is_sent_masked_and_known_to_be_ours(raw: RawProvider) -> None:
    """A provider's 401 makes us look again; what was decided for the old key must not outlive it."""
    keys = Rotating()
    upstream = providers(raw.base_url, keys, api_key=SecretRef(env="K"))
    seen: list[object] = [upstream.lacks_key("p"), upstream.uses_own_key("p"), upstream.mask("p", b"k1 k2")]
    keys.key = "k1"
    upstream.read_keys()
    seen += [upstream.lacks_key("p"), upstream.uses_own_key("p"), upstream.mask("p", b"k1 k2")]
    assert await upstream.refresh_credential("p")
    seen += [upstream.lacks_key("p"), upstream.uses_own_key("p"), upstream.mask("p", b"k1 k2")]
    await upstream.send(call())

    assert [True, False, b"k1 k2", False, True, b"*** k2", False, True, b"k1 ***"] == seen
    assert ["Bearer k2"] == raw.seen[0].all("authorization")
    await upstream.close()
