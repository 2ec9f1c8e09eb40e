"""Values out, values back: requests are redacted, answers restored, whole or streamed.

Owns findings' consequences: stand-ins, the vault of an exchange, the way back. Does not know patterns (``detect``),
policy files, sockets or who calls. Called by ``flow``; compiled per route at a policy's load.
"""

from proxy.core.redaction.answer import AnswerRedactor, StreamObserver
from proxy.core.redaction.detectors import Detector
from proxy.core.redaction.marks import Marks
from proxy.core.redaction.request import Blocked, Redacted, RequestRedactor, Unreadable, Untouched, Verdict
from proxy.core.redaction.restore import AnswerRestorer
from proxy.core.redaction.stream import StreamRestorer
from proxy.core.redaction.vault import Vault

__all__ = [
    "AnswerRedactor",
    "AnswerRestorer",
    "Blocked",
    "Detector",
    "Marks",
    "Redacted",
    "RequestRedactor",
    "StreamObserver",
    "StreamRestorer",
    "Unreadable",
    "Untouched",
    "Vault",
    "Verdict",
]
