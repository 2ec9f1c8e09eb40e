"""The simulated provider: an OpenAI-shaped server that says and does what it is told.

Owns its own HTTP on raw sockets, its texts, its faults and its journal. Knows nothing of the
sidecar. Called by ``readygate simulate provider``, by tests and by load tests.
"""

from proxy.simulator.faults import Fault, parse_fault
from proxy.simulator.journal import ConnectionRecord, Entry, Journal
from proxy.simulator.provider import SimulatedProvider
from proxy.simulator.settings import BadSetting, Settings, Speech

__all__ = [
    "BadSetting",
    "ConnectionRecord",
    "Entry",
    "Fault",
    "Journal",
    "Settings",
    "SimulatedProvider",
    "Speech",
    "parse_fault",
]
