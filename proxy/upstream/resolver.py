"""Names to addresses: what a slow, broken or silent name service may cost.

Owns the look-ups under way, the answers still good, and the failures not yet worth asking about again. Every look-up has
a thread of its own, because one that hangs can neither be stopped nor be let into anybody's pool. Does not know who asks
or how long they are willing to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult

GOOD_S: Final = 30.0
"""An answer is used so long without asking again."""
KEPT_S: Final = 600.0
"""An answer is used so long when the name service cannot be asked. One that says "no such name" is believed at once: the
address may be somebody else's by now."""
BAD_S: Final = 1.0
"""A failure is told again so long without asking."""
HANGS_AFTER_S: Final = 2.0
"""A look-up that has taken so long fails for everybody who asks from then on."""
SPARE_WAIT_S: Final = 0.5
"""Whoever has an older answer waits so long for a newer one."""
LOOKUPS_MAX: Final = 32

_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Place(NamedTuple):
    """One address: family, protocol, and the numeric host."""

    family: int
    proto: int
    ip: str


Lookup = Callable[[str, int], list[Place]]


@dataclass(slots=True)
class _Name:
    """What is known of one name in one address family."""

    places: tuple[Place, ...] = ()
    found_at_s: float = 0.0
    failure: str = ""
    failed_at_s: float = 0.0
    began_s: float | None = None
    """Since when a look-up is under way."""
    waiters: tuple[asyncio.Future[None], ...] = ()
    turn: int = 0
    """Which address goes first: each dial begins with the next one."""


def look_up(host: str, family: int) -> list[Place]:
    """Ask the system's name service; blocks.

    Raises:
        OSError: no answer, or none of use.
    """
    places = []
    for kind, _, proto, _, address in socket.getaddrinfo(
        host, 0, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    ):
        ip = str(address[0])
        if kind == socket.AF_INET6 and len(address) == 4 and address[3]:
            # A link-local address means nothing without its interface.
            ip = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
        places.append(Place(kind, proto, ip))
    return places


class Resolver(AbstractResolver):
    """The name service as the connector sees it; one per process."""

    def __init__(self, lookup: Lookup = look_up) -> None:
        self._lookup = lookup
        self._loop = asyncio.get_running_loop()
        self._names: dict[tuple[str, int], _Name] = {}
        self._running = 0

    def is_looking_up(self, host: str) -> bool:
        """True while nothing is known of ``host`` but that somebody has asked."""
        return any(
            name.began_s is not None and not name.places for (key, _), name in self._names.items() if key == host
        )

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host``.

        Raises:
            OSError: there are none, or they cannot be learned now.
        """
        name = self._names.setdefault((host, int(family)), _Name())
        now_s = self._loop.time()
        if not name.places or now_s - name.found_at_s > GOOD_S:
            self._ask(host, int(family), name, now_s)
            await self._wait(name, now_s)
        places = name.places
        if not places or self._loop.time() - name.found_at_s > KEPT_S:
            raise OSError(None, name.failure or "the name service does not answer")
        name.turn = (name.turn + 1) % len(places)
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=kind, proto=proto, flags=_NUMERIC)
            for kind, proto, ip in places[name.turn :] + places[: name.turn]
        ]

    def _ask(self, host: str, family: int, name: _Name, now_s: float) -> None:
        """Begin a look-up unless one is under way, one has just failed, or too many hang."""
        if name.began_s is not None or (name.failure and now_s - name.failed_at_s < BAD_S):
            return
        if self._running >= LOOKUPS_MAX:
            name.failure, name.failed_at_s = "too many look-ups hang", now_s
            return
        self._running += 1
        name.began_s = now_s
        # A daemon: a look-up that hangs must not keep the process from leaving.
        threading.Thread(target=self._run, args=(host, family, name), name="lookup", daemon=True).start()

    async def _wait(self, name: _Name, now_s: float) -> None:
        """Wait for the look-up under way, if it is worth it."""
        if name.began_s is None:
            return
        patience_s = SPARE_WAIT_S if name.places else HANGS_AFTER_S
        left_s = name.began_s + patience_s - now_s
        if left_s <= 0:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        name.waiters += (waiter,)
        timer = self._loop.call_later(left_s, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            name.waiters = tuple(other for other in name.waiters if other is not waiter)

    def _run(self, host: str, family: int, name: _Name) -> None:
        """Look it up, in a thread."""
        places: list[Place] = []
        failure, is_final = "no address", True
        try:
            places = self._lookup(host, family)
        except (OSError, UnicodeError) as exc:
            failure = getattr(exc, "strerror", None) or "no such name"
            is_final = getattr(exc, "errno", None) != socket.EAI_AGAIN
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ended, name, tuple(places), failure, is_final)

    def _ended(self, name: _Name, places: tuple[Place, ...], failure: str, is_final: bool) -> None:
        """Keep what a look-up brought, and wake whoever waits for it."""
        self._running -= 1
        name.began_s = None
        now_s = self._loop.time()
        if places:
            name.places, name.found_at_s, name.failure, name.turn = places, now_s, "", len(places) - 1
        else:
            name.failure, name.failed_at_s = failure, now_s
            if is_final:
                name.places = ()
        for waiter in name.waiters:
            _wake(waiter)

    async def close(self) -> None:
        """Nothing is held that has to be given back."""


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
