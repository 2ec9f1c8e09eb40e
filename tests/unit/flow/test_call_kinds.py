"""What is kept with a head a connection sends again is what would be worked out anew."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.config.settings import AuthHeader, ProviderSettings, SecretRef
from proxy.core.dialect import CHAT, OTHER
from proxy.core.policy.model import Target, Timeouts
from proxy.flow.call_kinds import CallKinds
from proxy.flow.catalog import Deployment
from proxy.flow.ports import Call
from proxy.terms.http import RequestHead
from proxy.upstream.endpoint import Endpoint

NAMES = ["one", "two"]
HEADERS = [
    (b"Authorization", b"Bearer callers"),
    (b"X-Goog-Key", b"callers"),
    (b"X-Api-Key", b"callers"),
    (b"X-A", b"1"),
]


def deployment(provider: str, model: str | None, *, speaks_messages: bool) -> Deployment:
    name = f"{provider}:{model or '*'}"
    target = Target(provider, model)
    return Deployment(name, provider, model, target, {}, provider, speaks_messages=speaks_messages)


CHAIN = [
    deployment(provider, model, speaks_messages=speaks)
    for provider in NAMES
    for model in (None, "fixed")
    for speaks in (False, True)
]
ENDED = [deployment("one", f"of-revision-{number}", speaks_messages=False) for number in range(20)]


@dataclass
class Keys:
    """Implements what kinds ask of the upstream, over real endpoints."""

    endpoints: dict[str, Endpoint]

    def uses_own_key(self, provider: str) -> bool:
        return self.endpoints[provider].key is not None

    def owned_headers(self, provider: str) -> frozenset[bytes]:
        return self.endpoints[provider].owned


def endpoint_of(name: str) -> Endpoint:
    key = SecretRef(env="K") if name == "one" else None
    return Endpoint(ProviderSettings(name, f"http://{name}/v1", api_key=key, auth_header=AuthHeader("x-goog-key", "")))


def head_of(path: str) -> RequestHead:
    fields = {name.lower(): value for name, value in HEADERS}
    return RequestHead("POST", f"/v1{path}?q=1".encode(), f"/v1{path}", HEADERS, fields)


def seen(
    kinds: CallKinds, endpoints: dict[str, Endpoint], head: RequestHead, one: Deployment, model: str | None
) -> Any:
    """Return everything that an exchange makes of a kind, down to the bytes on the wire."""
    dialect = CHAT if head.path.endswith("completions") else OTHER
    facts = SimpleNamespace(policy_revision="r1")
    exchange: Any = SimpleNamespace(inbound=SimpleNamespace(head=head), dialect=dialect, facts=facts)
    plan: Any = SimpleNamespace(request=SimpleNamespace(model=model), route=SimpleNamespace(passes_caller_key=True))
    kind = kinds.of(exchange, plan, one)
    wire = endpoints[one.endpoint].head_for(Call(kind, b"{}", Timeouts(), 0.0, 0))
    return kind.provider, kind.model, kind.is_own_key, kind.named, kind.variant, kind.deployment.name, wire


STEPS = st.tuples(
    st.sampled_from([*CHAIN, *CHAIN, *ENDED]),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from([*NAMES, "", ""]),
    st.sampled_from([None, "key-1", "key-2"]),
)


@given(steps=st.lists(STEPS, min_size=2, max_size=40), path=st.sampled_from(["/chat/completions", "/files"]))
def test_kept_kind_is_the_one_that_would_be_made(steps: list[tuple[Any, ...]], path: str) -> None:
    """Whatever deployments, models and keys come in between: an old key or another model's name must not go out."""
    endpoints = {name: endpoint_of(name) for name in NAMES}
    kinds, head = CallKinds(Keys(endpoints), demands_caller_key=False), head_of(path)  # type: ignore[arg-type]
    head.memo["caller"] = "known"
    for one, model, changes, key in steps:
        if changes and endpoints[changes].key != key:
            endpoints[changes].take_key(key)

        assert seen(kinds, endpoints, head_of(path), one, model) == seen(kinds, endpoints, head, one, model)
        assert len(head.memo) <= 18
        assert "known" == head.memo["caller"]
