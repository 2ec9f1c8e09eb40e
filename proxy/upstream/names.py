"""The hand that asks a names service: Presidio's analyzer API, ``POST /analyze``.

Owns the connections to it and the bounds of its answers. Does not know what is believed of an answer.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import orjson

from proxy.core.config.settings import NamesSettings
from proxy.terms.errors import NamesUnavailable
from proxy.upstream.resolver import Resolver

_MAX_ANSWER_BYTES: Final = 1 << 20


class NamesClient:
    """Implements ``flow.names.Analyzer``. Follows no redirect, takes no cookie, looks at no proxy of the environment."""

    def __init__(self, settings: NamesSettings, key: Callable[[], str | None]) -> None:
        self._settings = settings
        self._url = settings.url + "/analyze"
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    async def analyze(self, text: str, language: str) -> Any:
        """Return the service's answer to one text.

        Raises:
            NamesUnavailable: No connection, another status than 200, too long an answer, or no JSON.
        """
        try:
            async with self._opened().post(
                self._url,
                data=orjson.dumps({"text": text, "language": language}),
                headers=self._headers(),
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    raise NamesUnavailable(f"the names service answered {answer.status}")
                body = await _bounded(answer.content)
            return orjson.loads(body)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise NamesUnavailable(f"the names service cannot be asked: {type(exc).__name__}") from exc

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            ca_file = self._settings.ca_file
            trust: ssl.SSLContext | bool = True if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._settings.concurrency, ssl=trust, resolver=Resolver(), use_dns_cache=False
                ),
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
        key = self._key()
        if key is not None:
            header = self._settings.auth_header
            headers[header.name] = header.prefix + key
        return headers


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    """Read an answer up to its limit."""
    pieces: list[bytes] = []
    size = 0
    async for piece in content.iter_any():
        size += len(piece)
        if size > _MAX_ANSWER_BYTES:
            raise NamesUnavailable("the names service's answer is too long")
        pieces.append(piece)
    return b"".join(pieces)
