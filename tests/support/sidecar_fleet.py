"""Several sidecar processes that share one Valkey, each over a line of its own that can break, before one provider.

The provider's journal is the oracle: what it saw and billed, never what the sidecars counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from proxy.simulator import Entry
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.redis import RedisServer
from tests.support.simulator import Simulator
from tests.support.window_oracle import Window, costs_of, most_at_once, worst_window
from tests.support.wire import Sidecar, serving, threaded_simulator, write_files

CONFIG = """\
providers:
{providers}
budgets: {{{budgets}}}
audit: {{store: "sqlite:///audit.db", spool: spool, batch_wait: 50ms}}
log: {{level: warning, format: json}}
"""

POLICY = """\
version: 1
policy: fleet
applies_to: {{apps: ["*"]}}
redaction: {{request: {{default: 'off'}}}}
budgets:
{budgets}
routes:
{routes}
"""
ROUTE = '  - {{name: {name}, match: {{models: ["{name}-*"]}}, chain: [{chain}], retries: none, timeouts: {{first_byte: 90s}}}}'


@dataclass(slots=True)
class Fleet:
    """The running processes and everything between them."""

    folder: Path
    provider: Simulator
    redis: RedisServer
    sidecars: list[Sidecar] = field(default_factory=list)
    lines: list[FaultProxy] = field(default_factory=list)
    """The line of each sidecar to Redis."""
    started_s: float = 0.0

    @property
    def ports(self) -> list[int]:
        """The data ports."""
        return [sidecar.data_port for sidecar in self.sidecars]

    @property
    def served(self) -> list[Entry]:
        """The provider's requests so far."""
        return [entry for entry in self.provider.entries if entry.method == "POST"]

    def worst(self, window_s: float, unit: str = "requests", provider: str | None = None) -> Window:
        """Return the provider's worst window so far."""
        keep = None if provider is None else (lambda entry: entry.provider == provider)
        return worst_window(costs_of(self.provider.entries, unit, keep=keep), window_s)

    def most_at_once(self) -> int:
        """Return how many requests the provider had at a time at most."""
        return most_at_once((entry.started_s, entry.ended_s) for entry in self.served if entry.is_ended)

    def wait_until_slices_open(self, window_s: float) -> None:
        """Wait until every sidecar has run for a window: until then it must leave its slice alone."""
        time.sleep(max(0.0, self.started_s + window_s + 1.2 - time.monotonic()))  # noqa: TID251 - no event loop here

    def entries_of(self, provider: str) -> list[Entry]:
        """The requests that one provider got."""
        return [entry for entry in self.served if entry.provider == provider]

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's sum over the sidecars that run."""
        return sum(s.metric(name, **labels) for s in self.sidecars if s.process.poll() is None)

    def rewrite_policy(self, text: str) -> None:
        """Give every sidecar the same new policy."""
        for sidecar in self.sidecars:
            (sidecar.folder / "policies" / "default.yaml").write_text(text)


def policy_text(budgets: dict[str, str], chains: dict[str, tuple[str, ...]] | None = None) -> str:
    """Return a policy with a route ``NAME-*`` for each provider.

    Args:
        budgets: Provider -> its limits in flow style (``requests_per_10s: 5``); empty for none.
        chains: Routes over several providers: name -> them.
    """
    rules = [f"  - {{provider: {name}, {limits}}}" for name, limits in budgets.items() if limits]
    ways = {**{name: (name,) for name in budgets}, **(chains or {})}
    routes = [
        ROUTE.format(name=name, chain=", ".join(f"{{provider: {one}}}" for one in way)) for name, way in ways.items()
    ]
    return POLICY.format(budgets="\n".join(rules) or "  []", routes="\n".join(routes))


@contextmanager
def sidecar_fleet(
    folder: Path,
    count: int,
    policy: str,
    *,
    redis: RedisServer,
    store: str = "max_sidecars: {count}",
    providers: Sequence[str] = ("main",),
    env: dict[str, str] | None = None,
    prepare: Callable[[Fleet], None] | None = None,
    **speech: Any,
) -> Iterator[Fleet]:
    """Start ``count`` sidecars at once and stop them at the end.

    Args:
        folder: Empty.
        count: How many.
        policy: Text of the one policy, the same for all.
        redis: A running server.
        store: More of the ``budgets`` section in flow style.
        providers: Names; each is a prefix at the same simulated provider.
        env: More environment.
        prepare: Called when the lines are there and no sidecar is.
        speech: How the provider speaks; settings of the simulator.
    """
    port = urlsplit(redis.url).port or 6379
    with ExitStack() as stack:
        provider = stack.enter_context(threaded_simulator(journal_entries=200_000, **speech))
        fleet = Fleet(folder, provider, redis)
        for number in range(count):
            line = stack.enter_context(fault_proxy(port))
            fleet.lines.append(line)
            place = folder / f"sidecar{number}"
            place.mkdir()
            targets = "\n".join(f'  {name}: {{base_url: "{provider.origin}/{name}/v1"}}' for name in providers)
            budgets = f'store: "redis://127.0.0.1:{line.port}/0", {store.format(count=count)}'
            write_files(place, CONFIG.format(providers=targets, budgets=budgets), {"default.yaml": policy})
        if prepare is not None:
            prepare(fleet)
        starts = [serving(folder / f"sidecar{number}", env) for number in range(count)]
        fleet.sidecars.extend(stack.enter_context(together(starts)))
        fleet.started_s = time.monotonic()
        yield fleet


@contextmanager
def together(contexts: list[AbstractContextManager[Sidecar]]) -> Iterator[list[Sidecar]]:
    """Enter contexts at the same time, and leave them at the same time."""
    with ThreadPoolExecutor(max(1, len(contexts))) as threads:
        starts = [threads.submit(context.__enter__) for context in contexts]
        failures = [start.exception() for start in starts]
        try:
            for failure in failures:
                if failure is not None:
                    raise failure
            yield [start.result() for start in starts]
        finally:
            ends: list[Callable[[], object]] = [
                lambda context=context: context.__exit__(None, None, None)
                for context, failure in zip(contexts, failures, strict=True)
                if failure is None
            ]
            for end in [threads.submit(end) for end in ends]:
                end.result()
