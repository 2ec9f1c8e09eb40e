"""UF-02 where it hurts: a name service that does not answer, while other providers' names still resolve."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.support.raw_provider import RawProvider, raw_provider
from tests.support.wire import Message, Sidecar, caller, chat, serving, write_files

pytestmark = pytest.mark.integration

HANGING = 12
DOCUMENT = b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"content":"hi"}}],"usage":null}'


@pytest.fixture(scope="module")
def provider() -> Iterator[RawProvider]:
    with raw_provider() as running:
        running.answer(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(DOCUMENT)
            + DOCUMENT,
            closes=True,
        )
        yield running


@pytest.fixture(scope="module")
def sidecar(provider: RawProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    rows = "".join(f'  hang{n}: {{base_url: "http://hang{n}.test:{provider.port}/v1"}}\n' for n in range(HANGING))
    routes = "".join(
        f"  - {{match: {{models: [pair-{n}]}}, chain: [{{provider: hang{n}}}, {{provider: fine}}], retries: none,"
        " timeouts: {connect: 600ms}}\n"
        for n in range(HANGING)
    )
    rows += f'  broken: {{base_url: "http://fail.test:{provider.port}/v1"}}\n'
    routes += "  - {match: {models: [broken]}, chain: [{provider: broken}, {provider: fine}], retries: none}\n"
    folder = tmp_path_factory.mktemp("sidecar")
    config = f'providers:\n{rows}  fine: {{base_url: "http://fine.test:{provider.port}/v1"}}\n'
    policy = f"version: 1\npolicy: default\nroutes:\n{routes}  - {{match: {{models: [fine]}}, chain: [{{provider: fine}}]}}\n"
    write_files(folder, config, {"default.yaml": policy})
    with serving(folder, module="tests.support.deaf_sidecar") as running:
        yield running


def _timed(sidecar: Sidecar, model: str) -> tuple[Message, float]:
    began_s = time.monotonic()
    answer = sidecar.ask(chat(model=model))
    return answer, time.monotonic() - began_s


def test_names_that_hang_hold_up_nobody_else(sidecar: Sidecar) -> None:
    """Twelve look-ups hang; each falls back at its connect limit, and a provider whose name is known answers at once."""
    wires = [caller(sidecar.data_port) for _ in range(HANGING)]
    opened = [wire.__enter__() for wire in wires]
    began_s = time.monotonic()
    for number, wire in enumerate(opened):
        wire.send(chat(model=f"pair-{number}"))
    fine, took_s = _timed(sidecar, "fine")
    answers = [wire.message() for wire in opened]
    all_took_s = time.monotonic() - began_s
    for context in wires:
        context.__exit__(None, None, None)
    row = sidecar.row(answers[0].get("x-readygate-id"))

    assert (200, True) == (fine.status, took_s < 0.5)
    assert {200} == {answer.status for answer in answers}
    assert all_took_s < 0.6 + 0.9  # a busy machine's share
    assert ["dns_error", "ok"] == [attempt["outcome"] for attempt in json.loads(row["attempts"])]
    assert 200 == sidecar.status("/livez")


def test_name_that_goes_on_hanging_is_passed_over_at_once(sidecar: Sidecar) -> None:
    """Nobody else waits for a look-up that has hung for two seconds."""
    _timed(sidecar, "pair-0")
    time.sleep(2.0)  # noqa: TID251 - no event loop here
    answer, took_s = _timed(sidecar, "pair-0")

    assert (200, True) == (answer.status, took_s < 0.4)


def test_name_service_that_fails_is_walked_around_at_once(sidecar: Sidecar) -> None:
    """UF-02: SERVFAIL is one attempt that costs no time; the next target answers and the row says why."""
    answer, took_s = _timed(sidecar, "broken")
    row = sidecar.row(answer.get("x-readygate-id"))

    assert (200, True) == (answer.status, took_s < 0.4)
    assert ["dns_error", "ok"] == [attempt["outcome"] for attempt in json.loads(row["attempts"])]
