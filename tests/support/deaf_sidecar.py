"""``readygate`` on a machine whose name service is partly out of order: names that begin with ``hang`` are never
answered, those that begin with ``fail`` get SERVFAIL (which the system tells as "try again"), ``fine.test`` is this host.
Run as ``python -m tests.support.deaf_sidecar serve -c …``.
"""

from __future__ import annotations

import socket
import sys
import threading
from typing import Any

from proxy.cli import main

_system = socket.getaddrinfo


def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
    """Answer as the system does, or not at all."""
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name.startswith("hang"):
        threading.Event().wait(60)
    if name.startswith("fail"):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return _system("127.0.0.1" if name == "fine.test" else host, *args, **options)


socket.getaddrinfo = getaddrinfo
sys.exit(main())
