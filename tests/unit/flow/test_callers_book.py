"""Who is calling, from a head."""

from __future__ import annotations

import hashlib

import pytest

from proxy.core.config.settings import CallerKey
from proxy.flow.callers import ANONYMOUS, Caller, CallerBook
from proxy.terms.http import RequestHead

KEY = CallerKey("shop-prod", hashlib.sha256(b"secret").hexdigest(), "shop")


def head(**fields: str) -> RequestHead:
    named = {name.replace("_", "-").encode(): value.encode("utf-8") for name, value in fields.items()}
    return RequestHead("GET", b"/v1/x", "/v1/x", list(named.items()), named)


@pytest.mark.parametrize(
    "fields",
    [{"authorization": "Bearer secret"}, {"authorization": "bearer  secret "}, {"x_api_key": "secret"}, {"api_key": "secret"},
     {"sec_websocket_protocol": "realtime, openai-insecure-api-key.secret, x"}],
)  # fmt: skip
def test_key_is_found_wherever_sdks_put_it(fields: dict[str, str]) -> None:
    """OpenAI, Anthropic, Azure and browsers each have their place."""
    assert Caller("shop", "", "", "shop-prod") == CallerBook([KEY]).identify(head(**fields))


@pytest.mark.parametrize(
    "fields",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}, {"authorization": "secret"}, {"authorization": "Bearer "},
     {"x_api_key": ""}, {"authorization": "Bearer wrong", "x_api_key": "secret"}, {"x_readygate_app": "shop"}],
)  # fmt: skip
def test_without_the_key_nobody_is_known(fields: dict[str, str]) -> None:
    """A wrong Authorization is not helped by a second header."""
    assert None is CallerBook([KEY]).identify(head(**fields))


def test_key_decides_the_app_and_headers_the_rest() -> None:
    """A caller may say who its user is, not which app it is."""
    fields = {"authorization": "Bearer secret", "x_readygate_app": "other", "x_readygate_user": "ana"}

    assert Caller("shop", "ana", "", "shop-prod") == CallerBook([KEY]).identify(head(**fields))


def test_without_keys_headers_name_the_caller() -> None:
    """Any one of them is enough; none is nobody."""
    book = CallerBook([])

    assert not book.demands_key
    assert ANONYMOUS == book.identify(head(authorization="Bearer any"))
    assert Caller(conversation="c") == book.identify(head(x_readygate_conversation="c"))
    assert Caller("a", "u") == book.identify(head(x_readygate_app="a", x_readygate_user="u"))


def test_same_head_names_the_same_caller_again() -> None:
    """A connection that repeats its head shares it; the answer is remembered and stays right."""
    book, repeated = CallerBook([KEY]), head(authorization="Bearer secret")

    assert book.identify(repeated) == book.identify(repeated)
    bad = head(authorization="Bearer wrong")
    assert [None, None] == [book.identify(bad), book.identify(bad)]


def test_identity_is_bounded_and_printable() -> None:
    """It goes into rows, pages and logs."""
    caller = CallerBook([]).identify(head(x_readygate_user="a\x1b[31m\u202e" + "x" * 500))

    assert caller is not None
    assert 256 == len(caller.user)
    assert caller.user.isprintable()
