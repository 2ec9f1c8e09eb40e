"""An edit of a budget, through the front door: how soon it acts, and that it forgets nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.redis import RedisServer
from tests.support.wire import Sidecar, chat, eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
budgets: [{id: b, provider: main, requests_per_hour: LIMIT, when_exhausted: refuse}]
routes: [{name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


def edit(sidecar: Sidecar, limit: int) -> float:
    """Write another limit, wait until it acts, and return the seconds it took."""
    revision = sidecar.ask(chat()).get("x-readygate-policy")
    began_s = time.monotonic()
    (sidecar.folder / "policies" / "default.yaml").write_text(POLICY.replace("LIMIT", str(limit)))
    eventually(lambda: sidecar.ask(chat()).get("x-readygate-policy") != revision, "the edit acts", 5.0)
    return time.monotonic() - began_s


@pytest.mark.parametrize("store", ["memory", "redis"])
def test_lowered_limit_acts_within_a_second_and_forgets_nothing(
    store: str, own_redis: RedisServer, tmp_path: Path
) -> None:
    """RL-23, LC-08: lowering below what is used refuses at once; raising again admits only the difference."""
    shared = (
        "" if store == "memory" else f'budgets: {{store: "{own_redis.url}", max_sidecars: 1, private_share: 0.0}}\n'
    )
    with threaded_simulator() as provider:
        config = f'{shared}providers: {{main: {{base_url: "{provider.base_url}"}}}}\n'
        with sidecar_for(tmp_path, config, POLICY.replace("LIMIT", "100")) as sidecar:
            before = [sidecar.ask(chat()).status for _ in range(10)]
            took_s = edit(sidecar, 10)
            lowered = [sidecar.ask(chat()).status for _ in range(3)]
            used = provider.journal.request_count
            edit(sidecar, used + 5)
            raised = [sidecar.ask(chat()).status for _ in range(12)]

            assert [200] * 10 == before
            assert [429] * 3 == lowered
            assert took_s < 1.5  # half a second between looks, a tenth to settle, and a busy machine
            assert used + 5 == provider.journal.request_count
            assert 429 == raised[-1]
