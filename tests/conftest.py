"""Fixtures every folder may use: a real PostgreSQL and a real Valkey, one database a test.

They start by themselves (2-4 s, once a run) and skip, saying why, only where there is no server binary.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.postgres import NoServer, fresh_database, postgres_url, running_postgres
from tests.support.postgres import PostgresServer as _PostgresServer
from tests.support.redis import RedisServer as _RedisServer
from tests.support.redis import redis_url as _redis_url
from tests.support.redis import running_redis

# A slow example is no finding: machines that run this are shared, and what must be fast is measured elsewhere.
settings.register_profile("readygate", deadline=None)
settings.load_profile("readygate")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of the maintenance database of a server shared by all tests."""
    try:
        with postgres_url() as url:
            yield url
    except NoServer as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def _template(postgres: str) -> Iterator[str]:
    with fresh_database(postgres) as url:
        yield url.rsplit("/", 1)[1]


@pytest.fixture
def database_url(postgres: str, _template: str) -> Iterator[str]:
    """URL of an empty database that belongs to one test."""
    with fresh_database(postgres, _template) as url:
        yield url


@pytest.fixture
def own_postgres() -> Iterator[_PostgresServer]:
    """A server of the test's own, to be stopped and started."""
    try:
        with running_postgres() as server:
            yield server
    except NoServer as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """URL of a Valkey or Redis shared by all tests; flush before use."""
    try:
        with _redis_url() as url:
            yield url
    except NoServer as exc:
        pytest.skip(str(exc))


@pytest.fixture
def own_redis() -> Iterator[_RedisServer]:
    """A Valkey of the test's own, to be stopped and started."""
    try:
        with running_redis() as server:
            yield server
    except NoServer as exc:
        pytest.skip(str(exc))
