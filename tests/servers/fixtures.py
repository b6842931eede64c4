"""Servers that tests share: started at first use, once in a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.kafka import KafkaServer
    from tests.servers.mariadb import MariadbServer
    from tests.servers.pgbouncer import Pooler
    from tests.servers.postgresql import PostgresqlServer
    from tests.servers.seaweed import SeaweedServer
    from tests.servers.valkey import RedisServer


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One PostgreSQL for all tests, each in a database of its own; who kills it starts it again."""
    from tests.servers.postgresql import PostgresqlServer

    with PostgresqlServer() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> str:
    """The URL of an empty database."""
    return postgresql_server.create_database()


@pytest.fixture(scope="session")
def older_postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL 15."""
    from tests.servers.postgresql import PostgresqlServer

    with PostgresqlServer(older=True) as server:
        yield server


@pytest.fixture(scope="session")
def pooler(postgresql_server: PostgresqlServer) -> Iterator[Pooler]:
    """A pooler of transactions in front of the one PostgreSQL."""
    from tests.servers.pgbouncer import Pooler

    with Pooler(postgresql_server) as pooler:
        yield pooler


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """One Valkey for all tests; each has to take a prefix of its own, or its database."""
    from tests.servers.valkey import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: RedisServer) -> str:
    """The URL of an empty Valkey that keeps what a test does to its settings from the next one."""
    valkey_server.ask("FLUSHALL")
    valkey_server.ask("CONFIG", "SET", "maxmemory", 0)
    valkey_server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    return valkey_server.url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """One MariaDB for all tests, each in a database of its own; who kills it starts it again."""
    from tests.servers.mariadb import MariadbServer

    with MariadbServer() as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb_server: MariadbServer) -> str:
    """The URL of an empty database."""
    return mariadb_server.create_database()


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    """One broker for all tests, each with topics of its own; who kills it takes them all."""
    from tests.servers.kafka import KafkaServer

    with KafkaServer() as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_server() -> Iterator[SeaweedServer]:
    """One server of the S3 protocol for all tests, each in a bucket of its own; who kills it starts it again."""
    from tests.servers.seaweed import SeaweedServer

    with SeaweedServer() as server:
        yield server


@pytest.fixture
def s3_place(seaweed_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket and a prefix in it that is empty, which the environment leads to."""
    for name, value in seaweed_server.environment().items():
        monkeypatch.setenv(name, value)
    return seaweed_server.new_place()
