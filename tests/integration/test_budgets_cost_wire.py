"""Tokens and cost through the front door: what is asked of the provider, what the caller sees, what the row says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, chat, eventually, sidecar_for, stream_text, threaded_simulator

pytestmark = pytest.mark.integration

PRICES = """version: 1
revision: "t"
prices: [{model: "gpt-*", input: 100, output: 1000}]
"""
POLICY = """
version: 1
policy: default
budgets:
  - {id: tokens, provider: main, tokens_per_hour: 100000, cost_per_month_usd: 50, time_zone: Europe/Berlin, when_exhausted: refuse, unknown_price: refuse}
  - {id: each, per: [user], requests_per_hour: 2, user: "only-*", when_exhausted: refuse}
routes:
  - {name: capped, match: {models: ["gpt-capped"]}, chain: [{provider: main}], output_cap: 77, retries: none}
  - {name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def sidecar(provider: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    folder = tmp_path_factory.mktemp("cost")
    (folder / "prices.yaml").write_text(PRICES)
    config = f'prices: prices.yaml\nproviders: {{main: {{base_url: "{provider.base_url}"}}}}\n'
    with sidecar_for(folder, config, POLICY) as running:
        yield running


def sent(provider: Simulator) -> dict[str, object]:
    body: dict[str, object] = orjson.loads(provider.entries[-1].body)
    return body


def test_stream_under_a_token_budget_is_settled_and_looks_as_without(sidecar: Sidecar, provider: Simulator) -> None:
    """The provider is asked for usage; the caller gets the same events as if nobody had."""
    answer = sidecar.ask(chat(model="gpt-x", stream=True))
    row = sidecar.row(answer.get("x-readygate-id"))

    assert {"include_usage": True} == sent(provider)["stream_options"]
    assert stream_text(answer)
    assert not any('"usage"' in event for event in answer.events)
    assert row["tokens_out"] > 0
    assert not row["tokens_estimated"]


def test_stream_whose_caller_wants_usage_has_it(sidecar: Sidecar) -> None:
    """What was asked for is not ours to take."""
    answer = sidecar.ask(chat(model="gpt-x", stream=True, stream_options={"include_usage": True}))

    assert any('"total_tokens"' in event for event in answer.events)


def test_cost_stands_in_the_row_and_with_the_provider(sidecar: Sidecar) -> None:
    """Tokens times price, in dollars."""
    answer = sidecar.ask(chat(model="gpt-x"))
    row = sidecar.row(answer.get("x-readygate-id"))
    told = sidecar.admin("/providers").json()["providers"]["main"]

    assert pytest.approx((row["tokens_in"] * 100 + row["tokens_out"] * 1000) / 1e6) == row["cost_usd"]
    assert told["spent_usd"] >= row["cost_usd"] * 0.99
    assert sidecar.metric("readygate_spent_usd_total", provider="main") > 0


def test_answer_without_usage_is_estimated_and_says_so(sidecar: Sidecar) -> None:
    """A provider that reports nothing is counted by what passed."""
    answer = sidecar.ask(chat(model="gpt-x", headers={"x-sim-speech": "usage=no"}))
    row = sidecar.row(answer.get("x-readygate-id"))

    assert row["tokens_estimated"]
    assert row["tokens_out"] > 0


def test_model_without_a_price_is_refused_where_policy_says_so(sidecar: Sidecar, provider: Simulator) -> None:
    """A budget of cost that cannot count is no budget."""
    asked = provider.journal.request_count
    answer = sidecar.ask(chat(model="mystery"))

    assert (403, "unknown_price") == (answer.status, answer.error["code"])
    assert "false" == answer.get("x-should-retry")
    assert asked == provider.journal.request_count


def test_longest_answer_is_sent_along_where_the_caller_names_none(sidecar: Sidecar, provider: Simulator) -> None:
    """The cap makes the estimate an upper bound."""
    sidecar.ask(chat(model="gpt-capped"))

    assert 77 == sent(provider)["max_completion_tokens"]


def test_each_user_has_the_limit_for_itself(sidecar: Sidecar) -> None:
    """Two requests an hour for each of two users; the third of one is refused, others are not limited."""
    users = ["only-a", "only-a", "only-b", "only-a", "only-b", "other", "other", "other"]
    statuses = [sidecar.ask(chat(model="gpt-x", user=user)).status for user in users]

    assert [200, 200, 200, 429, 200, 200, 200, 200] == statuses


def test_request_that_may_cost_more_than_the_month_is_too_large(sidecar: Sidecar) -> None:
    """Sixty thousand tokens out cost sixty dollars here; fifty is all there is."""
    answer = sidecar.ask(chat(model="gpt-x", max_tokens=60000))

    assert (400, "budget_request_too_large") == (answer.status, answer.error["code"])


def test_new_price_acts_within_a_second_or_two(sidecar: Sidecar) -> None:
    """An edit of the table needs no restart; a broken one changes nothing."""
    folder: Path = sidecar.folder
    (folder / "prices.yaml").write_text(PRICES.replace("gpt-*", "*").replace("input: 100", "input: 0"))

    eventually(lambda: sidecar.ask(chat(model="mystery")).status == 200, "the new row counts", 4.0)


def test_photo_is_not_refused_for_the_size_of_its_file(sidecar: Sidecar) -> None:
    """A photo of 400 KB is a thousand tokens or two; as a third of its bytes no hour of this budget would hold it."""
    photo = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + "QUJD" * 130_000}}
    answer = sidecar.ask(chat([photo], model="gpt-x", max_tokens=10))  # type: ignore[arg-type]

    assert 200 == answer.status
