"""The shared counters on a cluster and behind sentinels: the same promises, and a failover that costs no error."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from proxy.flow.budgets import Denied, Granted
from tests.support.budgets import budget_rule
from tests.support.postgres import NoServer, free_port
from tests.support.redis import find_binary
from tests.support.shared_budgets import SharedStore
from tests.support.sidecar_process import wait_until

pytestmark = pytest.mark.integration

RULES = (budget_rule("p", "x", requests_per_minute=12, tokens_per_minute=1000, concurrent=12),)


@contextmanager
def server(folder: Path, *options: str) -> Iterator[int]:
    """Run one server on loopback; yield its port."""
    try:
        binary = find_binary()
    except NoServer as exc:
        pytest.skip(str(exc))
    # A cluster's nodes talk to each other ten thousand ports higher up.
    port = next(port for port in iter(free_port, 0) if port < 55_000)
    place = folder / str(port)
    place.mkdir()
    command = [str(binary), *options, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(place)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(port), 10.0, f"server on {port}")
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return bool(redis.Redis(port=port).ping())
    except redis.RedisError:
        return False


def exhaust(url: str, clock: redis.Redis) -> tuple[int, SharedStore, asyncio.AbstractEventLoop]:
    """Ask twenty times for a budget of twelve."""
    loop = asyncio.new_event_loop()
    store = SharedStore(url, RULES, loop=loop, clock=clock)
    verdicts = [store.reserve(RULES, "x", 10, 50.0, f"r{i}") for i in range(20)]
    for verdict in verdicts:
        if isinstance(verdict, Granted):
            store.settle(verdict.reservation, 5, 51.0)
    assert all(isinstance(v, Granted | Denied) for v in verdicts)
    return sum(isinstance(v, Granted) for v in verdicts), store, loop


def test_cluster_of_three_keeps_one_budget_on_one_node(tmp_path: Path) -> None:
    """All keys of a namespace carry one hash tag, so the script is one command of one node."""
    with ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--save", "", "--appendonly", "no")
        ports = [stack.enter_context(server(tmp_path, *options)) for _ in range(3)]
        _join(ports)
        clock = _node_of(ports, "readygate:{test}:members")
        admitted, store, loop = exhaust(f"redis+cluster://127.0.0.1:{ports[0]}", clock)
        views = {d.dimension.value: d.used for d in store.snapshot(52.0)[0].dimensions}
        store.close()
        loop.close()

    assert 12 == admitted
    assert {"requests_per_minute": 12, "tokens_per_minute": 60, "concurrent": 0} == views


def _join(ports: list[int]) -> None:
    """Make a cluster of single nodes, each with a third of the slots."""
    nodes = [redis.Redis(port=port) for port in ports]
    for index, node in enumerate(nodes):
        first, last = index * 16384 // 3, (index + 1) * 16384 // 3 - 1
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        if index:
            node.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])

    def is_well() -> bool:
        return all(b"cluster_state:ok" in _raw(node, "CLUSTER", "INFO") for node in nodes)

    wait_until(is_well, 15.0, "the cluster to form")


def _raw(node: redis.Redis, *words: str) -> bytes:
    reply = node.execute_command(*words)
    return reply if isinstance(reply, bytes) else str(reply).replace("': '", ":").replace("'", "").encode()


def _node_of(ports: list[int], key: str) -> redis.Redis:
    """Return the node that keeps a key, for the test's clock."""
    slot = int(redis.Redis(port=ports[0]).execute_command("CLUSTER", "KEYSLOT", key))
    return redis.Redis(port=ports[min(2, next(i for i in range(3) if slot < (i + 1) * 16384 // 3))])


def test_sentinels_name_the_master_and_a_failover_is_survived(tmp_path: Path) -> None:
    """A promoted replica goes on counting; no verdict is an error."""
    plain = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
    with ExitStack() as stack:
        master = stack.enter_context(server(tmp_path, *plain))
        replica = stack.enter_context(server(tmp_path, *plain, "--replicaof", f"127.0.0.1 {master}"))
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f"sentinel monitor budget 127.0.0.1 {master} 1\nsentinel down-after-milliseconds budget 300\n"
            "sentinel failover-timeout budget 2000\n"
        )
        port = free_port()
        command = [str(find_binary()), str(config), "--sentinel", "--port", str(port), "--bind", "127.0.0.1"]
        sentinel = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(sentinel.wait)
        stack.callback(sentinel.kill)
        wait_until(lambda: _answers(port), 10.0, "the sentinel")
        wait_until(lambda: _knows_replica(port), 15.0, "the sentinel to know the replica")
        url = f"redis+sentinel://127.0.0.1:{port}/budget"
        admitted, store, loop = exhaust(url, redis.Redis(port=master))
        wait_until(lambda: redis.Redis(port=replica).hlen("readygate:{test}:sentinels") == 4, 5.0, "the copy")
        redis.Redis(port=master).shutdown(nosave=True, now=True, force=True)
        wait_until(lambda: _is_master(replica), 15.0, "the failover")
        store.server = redis.Redis(port=replica)
        verdicts = []
        for index in range(20):
            verdicts.append(store.reserve(RULES, "x", 10, 52.0, f"late{index}"))
            loop.run_until_complete(asyncio.sleep(0.1))
        fresh = [store.reserve(RULES, "x", 10, 130.0 + index, f"fresh{index}") for index in range(3)]
        store.close()
        loop.close()

    assert 12 == admitted
    assert {Denied} == {type(verdict) for verdict in verdicts}
    assert Granted is type(fresh[-1])


def _knows_replica(port: int) -> bool:
    sentinel = redis.Redis(port=port)
    return len(sentinel.execute_command("SENTINEL", "REPLICAS", "budget")) == 1


def _is_master(port: int) -> bool:
    time.sleep(0.05)  # noqa: TID251 - no event loop here
    return bool(redis.Redis(port=port).role()[0] in (b"master", "master"))
