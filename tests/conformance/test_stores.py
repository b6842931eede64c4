"""All signature stores against the one suite, and what is the file store's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.servers.pgbouncer import Pooler
from tests.servers.postgresql import PostgresqlServer
from tests.servers.valkey import PASSWORD, RedisServer, ValkeyCluster

from rundiff.stores.contract import SignatureStore
from rundiff.stores.files import FileStore
from rundiff.stores.registry import open_store
from rundiff.testing.stores import SYNC, StoreSuite

Opener = Callable[[], SignatureStore]


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Callable[[str], Opener]]:
    """Give what opens one and the same store of a URL, each time with an empty cache, and closes them all."""
    opened: list[SignatureStore] = []

    def open_once(url: str) -> SignatureStore:
        opened.append(open_store(url, tmp_path / "unused", tmp_path / f"cache-{len(opened)}"))
        return opened[-1]

    yield lambda url: lambda: open_once(url)
    for store in opened:
        store.close()


class TestFiles(StoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Opener:
        return lambda: FileStore(tmp_path / "signatures")


class TestValkey(StoreSuite):
    @pytest.fixture
    def open_store(self, valkey_url: str, opener: Callable[[str], Opener]) -> Opener:
        return opener(valkey_url)


@pytest.fixture(scope="module")
def older() -> Iterator[RedisServer]:
    with RedisServer("redis", tls=True, requirepass=PASSWORD) as server:
        yield server


class TestOlderRedisWithTlsAndPassword(StoreSuite):
    @pytest.fixture
    def open_store(self, older: RedisServer, opener: Callable[[str], Opener]) -> Opener:
        older.ask("FLUSHALL")
        return opener(older.url)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer("redis", unixsocket=tmp_path_factory.mktemp("socket") / "redis.sock") as server:
        yield server


class TestOlderRedisBySocket(StoreSuite):
    @pytest.fixture
    def open_store(self, local: RedisServer, opener: Callable[[str], Opener]) -> Opener:
        local.ask("FLUSHALL")
        return opener(f"unix://{local.settings['unixsocket']}?prefix=mine")


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster() as cluster:
        yield cluster


class TestCluster(StoreSuite):
    @pytest.fixture
    def open_store(self, cluster: ValkeyCluster, opener: Callable[[str], Opener]) -> Opener:
        for node in cluster.nodes:
            node.ask("FLUSHALL")
        return opener(cluster.url)


class TestPostgresql(StoreSuite):
    @pytest.fixture
    def open_store(self, postgresql_url: str, opener: Callable[[str], Opener]) -> Opener:
        return opener(postgresql_url)


class TestOlderPostgresql(StoreSuite):
    @pytest.fixture
    def open_store(self, older_postgresql: PostgresqlServer, opener: Callable[[str], Opener]) -> Opener:
        return opener(older_postgresql.create_database())


class TestPooledPostgresql(StoreSuite):
    @pytest.fixture
    def open_store(self, postgresql_url: str, pooler: Pooler, opener: Callable[[str], Opener]) -> Opener:
        return opener(pooler.through(postgresql_url))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"manifest": "m"}', b"\xff\xfe", b'{"token": "x"}']
)
def test_a_damaged_pointer_says_nothing_and_is_written_anew(tmp_path: Path, content: bytes) -> None:
    store = FileStore(tmp_path)
    store.swap_manifest(SYNC, "manifest-1", 9)
    (tmp_path / SYNC / "current.json").write_bytes(content)
    assert store.current_manifest(SYNC) is None
    store.swap_manifest(SYNC, "manifest-2", 3)
    assert store.current_manifest(SYNC) == "manifest-2"


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "signatures")
    assert (store.get(SYNC, "a"), list(store.names(SYNC)), store.current_manifest(SYNC)) == (None, [], None)
    assert list(tmp_path.iterdir()) == []
