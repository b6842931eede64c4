"""Servers that tests share: started at first use, once in a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.postgresql import PostgresqlServer


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
