"""A connection to a Redis or Valkey from a URL: one server, a cluster, or whatever its sentinels say is the master.

Owns the client's settings: no retries (an operation repeated by the driver would be charged twice), and time-outs
so short that a store that is away costs an exchange next to nothing. redis-py is imported here and nowhere else.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException, RedisError

__all__ = ["COMMAND_TIMEOUT_S", "CONNECT_TIMEOUT_S", "STORE_ERRORS", "Client", "NoScriptError", "RedisError", "connect"]

STORE_ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError)
CONNECT_TIMEOUT_S = 0.05
COMMAND_TIMEOUT_S = 0.075
MAX_CONNECTIONS = 8
_SENTINEL_PORT = 26379

Client = Any
"""``Redis`` or ``RedisCluster``: what both have is used, and their types have no common name."""


def connect(
    url: str, command_timeout_s: float = COMMAND_TIMEOUT_S, connect_timeout_s: float = CONNECT_TIMEOUT_S
) -> Client:
    """Return a client that dials when it is first used.

    Args:
        url: Of the server, or of its cluster or sentinels.
        command_timeout_s: For each answer.
        connect_timeout_s: For dialling.

    Raises:
        ValueError: The URL cannot be read; the message never repeats it.
    """
    scheme = url.partition("://")[0]
    options: dict[str, Any] = {
        "socket_timeout": command_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "max_connections": MAX_CONNECTIONS,
        "retry": Retry(NoBackoff(), 0),
    }
    try:
        if scheme.endswith("+cluster"):
            return RedisCluster.from_url(url.replace("+cluster", "", 1), **options)
        if scheme.endswith("+sentinel"):
            return _master(url, options)
        return Redis.from_url(url, **options)
    except ValueError as exc:
        raise ValueError("the budget store's URL cannot be read") from exc


def _master(url: str, options: dict[str, Any]) -> Client:
    """Ask the sentinels of ``redis+sentinel://user:password@a:26379,b:26379/service?db=0``."""
    parts = urlsplit(url)
    hosts = []
    for host in parts.netloc.rpartition("@")[2].split(","):
        name, colon, port = host.rpartition(":")
        hosts.append((name, int(port)) if colon else (host, _SENTINEL_PORT))
    service = parts.path.strip("/").split("/")[0]
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    credentials = parts.netloc.rpartition("@")[0]
    if credentials:
        user, _, password = credentials.partition(":")
        options["username"] = unquote(user) or None
        options["password"] = unquote(password) or None
    database = parse_qs(parts.query).get("db", ["0"])[0]
    sentinel_options = {k: options[k] for k in ("socket_timeout", "socket_connect_timeout", "retry")}
    sentinels = Sentinel(hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    return sentinels.master_for(service, db=int(database), **options)
