"""Everything one simulated provider shares among its connections.

Owns nothing but the joining: settings, the speech in force, journal, fault board, files, the live
connections and the way to the listener.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from proxy.simulator.faults import FaultBoard
from proxy.simulator.files import FileStore
from proxy.simulator.journal import Journal
from proxy.simulator.settings import Settings, Speech


class LiveConnection(Protocol):
    """A connection as its world sees it."""

    idle_since_s: float
    """Monotonic seconds; negative while a request is under way."""

    def close_now(self, how: str) -> None:
        """End the connection: ``fin`` or ``reset``."""


def _closed_for(_seconds: float) -> None:
    """Do nothing: there is no listener yet."""


@dataclass(slots=True)
class World:
    """See the module."""

    settings: Settings
    speech: Speech
    journal: Journal
    board: FaultBoard
    files: FileStore = field(default_factory=FileStore)
    connections: set[LiveConnection] = field(default_factory=set)
    close_listener: Callable[[float], None] = _closed_for
    """Close the listener for so many seconds (0: until opened again)."""
    bench_requests: int = 0
    bench_events: int = 0

    def reset(self) -> None:
        """Return to what was set at start; connections live on."""
        self.journal.reset()
        self.board.reset()
        self.files.reset()
        self.speech = self.settings.speech
