"""Dialling: from a provider's address to a connected transport, through aiohttp's connector.

Owns the connector (happy eyeballs, TLS contexts, CONNECT through egress proxies). Every driver
exception is translated here into an ``Outcome``. Knows nothing of HTTP beyond the connector's own CONNECT.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from dataclasses import dataclass

import aiohttp
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from proxy.flow.ports import AttemptFailed
from proxy.terms.outcomes import Outcome
from proxy.upstream.resolver import Resolver


@dataclass(frozen=True, slots=True)
class Address:
    """Where to dial: an absolute URL whose scheme, host and port count, a CA file, an egress proxy."""

    url: URL
    ca_file: str | None = None
    egress_proxy: URL | None = None

    @property
    def is_tls(self) -> bool:
        """True for https."""
        return self.url.scheme == "https"


class Dialer:
    """Opens connections; one per process."""

    def __init__(self) -> None:
        self._resolver = Resolver()
        self._connector = aiohttp.TCPConnector(
            limit=0, force_close=True, resolver=self._resolver, use_dns_cache=False, enable_cleanup_closed=False
        )
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        self._loop = asyncio.get_running_loop()

    def _context(self, ca_file: str | None) -> ssl.SSLContext:
        context = self._contexts.get(ca_file)
        if context is None:
            context = ssl.create_default_context(cafile=ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"])
            self._contexts[ca_file] = context
        return context

    async def dial(self, address: Address, protocol: asyncio.Protocol, timeout_s: float) -> asyncio.Transport:
        """Connect ``protocol`` to the address.

        Raises:
            AttemptFailed: with the outcome that names the phase (DNS, connect, TLS, time-out).
        """
        try:
            async with asyncio.timeout(timeout_s):
                transport = await self._connect(address, protocol)
        except TimeoutError as exc:
            asked = (address.egress_proxy or address.url).host or ""
            is_lost = self._resolver.is_looking_up(asked)
            raise AttemptFailed(Outcome.DNS_ERROR if is_lost else Outcome.CONNECT_TIMEOUT) from exc
        except (aiohttp.ClientConnectorDNSError, socket.gaierror) as exc:
            raise AttemptFailed(Outcome.DNS_ERROR) from exc
        except (aiohttp.ClientSSLError, ssl.SSLError, ssl.CertificateError) as exc:
            raise AttemptFailed(Outcome.TLS_ERROR) from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise AttemptFailed(Outcome.CONNECT_ERROR) from exc
        return transport

    async def _connect(self, address: Address, protocol: asyncio.Protocol) -> asyncio.Transport:
        direct = self._direct_target(address)
        if direct is not None:
            transport, _ = await self._loop.create_connection(lambda: protocol, *direct)
            return transport
        request = ClientRequest(
            "GET",
            address.url,
            loop=self._loop,
            ssl=self._context(address.ca_file) if address.is_tls else True,
            proxy=address.egress_proxy,
        )
        connection = await self._connector.connect(request, [], aiohttp.ClientTimeout(total=None))
        connected = connection.transport
        assert connected is not None
        transport = connected
        handler = connection.protocol
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        # The connector's own handler is told that its connection is over, so that nothing is counted twice.
        assert handler is not None
        handler.transport = None
        connection.close()
        return transport

    @staticmethod
    def _direct_target(address: Address) -> tuple[str, int] | None:
        """A plain TCP address that needs no lookup, TLS or proxy (a local model server)."""
        if address.is_tls or address.egress_proxy is not None or address.url.host is None:
            return None
        try:
            ipaddress.ip_address(address.url.host)
        except ValueError:
            return None
        return address.url.host, address.url.port or 80

    async def close(self) -> None:
        """Close what the connector still holds."""
        await self._connector.close()
