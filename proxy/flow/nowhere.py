"""The responder of a request that was answered before it became an exchange: whatever is written to it goes nowhere."""

from __future__ import annotations

from typing import Final


class _Nowhere:
    """The responder of a request that was answered before it became an exchange."""

    has_started = True

    def send_whole(self, status: int, reason: bytes, headers: bytes, body: bytes) -> None: ...

    def send_head(self, status: int, reason: bytes, headers: bytes) -> None: ...

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None: ...

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...

    def bind(self, live: object) -> None: ...

    def tunnel(self, head: bytes, live: object) -> None: ...

    def tunnel_write(self, data: bytes) -> None: ...


NOWHERE: Final = _Nowhere()
