"""A caller in a process of its own who asks something short every few milliseconds and notes how long each takes.

Run as ``python -m tests.support.second_caller PORT``; it stops when its stdin has something and prints the slowest answer in
seconds and how many there were.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from typing import Self

EVERY_S = 0.004
BODY = b'{"model":"short","messages":[{"role":"user","content":"are you there?"}]}'
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (
        len(BODY),
        BODY,
    )
)


class SecondCaller:
    """Asks while the block runs, over one connection of its own."""

    def __init__(self, port: int) -> None:
        self.slowest_s = 0.0
        self.count = 0
        self._port = port

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.support.second_caller", str(self._port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        out, _err = self._process.communicate("stop", timeout=20)
        slowest, count = out.split()
        self.slowest_s, self.count = float(slowest), int(count)


def main(port: int) -> None:
    """Ask until told to stop."""
    slowest_s, count = 0.0, 0
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not select.select([sys.stdin], [], [], EVERY_S)[0]:
            began_s = time.monotonic()
            sock.sendall(ASK)
            got = b""
            while b"total_tokens" not in got:
                piece = sock.recv(65536)
                if not piece:
                    raise ConnectionError("the sidecar closed")
                got += piece
            if count:
                slowest_s = max(slowest_s, time.monotonic() - began_s)
            else:
                print("asks", flush=True)
            count += 1
    print(slowest_s, count)


if __name__ == "__main__":
    main(int(sys.argv[1]))
