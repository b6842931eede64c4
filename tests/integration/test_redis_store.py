"""Whole syncs whose baselines are on a Redis or Valkey, or on PostgreSQL."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.servers.valkey import PASSWORD, CuttingProxy, RedisServer, Sentinel, ValkeyCluster
from tests.sqlitefiles import opened

import rundiff
from rundiff.cli import main
from rundiff.errors import ConfigurationError, StorageError
from rundiff.stores import redis_link
from rundiff.stores.redis_place import read_place

Captured = pytest.CaptureFixture[str]


def table(start: int, stop: int, v: str = "a") -> pa.Table:
    ids = range(start, stop)
    return pa.table({"id": [f"customer-{each:015d}" for each in ids], "v": [v] * len(ids)})


class Syncing:
    """One sync into one SQLite table."""

    def __init__(self, folder: Path, home: Path, signatures: str) -> None:
        self.folder, self.home, self.signatures = folder, home, signatures

    def run(self, source: Any, **options: Any) -> rundiff.Run:
        return rundiff.sync(
            source,
            primary_key="id",
            name="s",
            destination=f"sqlite:///{self.folder}/d.db",
            into="t",
            home=self.home,
            signatures=self.signatures,
            **options,
        )

    def ids(self) -> set[str]:
        with opened(self.folder / "d.db") as database:
            found = [row[0] for row in database.execute("SELECT id FROM t")]
        database.close()
        assert len(found) == len(set(found))
        return set(found)


@pytest.fixture
def syncing(tmp_path: Path, home: Path, valkey_url: str) -> Syncing:
    return Syncing(tmp_path, home, valkey_url)


def counts(run: rundiff.Run) -> tuple[int, int, int, int]:
    return run.counts.created, run.counts.updated, run.counts.deleted, run.counts.unchanged


def three_runs(syncing: Syncing) -> None:
    assert counts(syncing.run(table(0, 3000))) == (3000, 0, 0, 0)
    changed = pa.concat_tables([table(10, 2900), table(2900, 2990, "b"), table(3000, 3020)])
    assert counts(syncing.run(changed)) == (20, 90, 20, 2890)
    assert counts(syncing.run(changed)) == (0, 0, 0, 3000)
    assert syncing.ids() == set(changed["id"].to_pylist())


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster() as cluster:
        yield cluster


class TestEveryKindOfServer:
    def test_valkey(self, syncing: Syncing) -> None:
        three_runs(syncing)
        # Nothing of the baseline is in the files of the default.
        assert not (syncing.home / "signatures").exists()

    def test_an_older_redis_with_tls_and_password(self, tmp_path: Path, home: Path) -> None:
        with RedisServer("redis", tls=True, requirepass=PASSWORD) as server:
            three_runs(Syncing(tmp_path, home, server.url))
        # The password is kept nowhere.
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()

    def test_a_cluster(self, tmp_path: Path, home: Path, cluster: ValkeyCluster) -> None:
        syncing = Syncing(tmp_path, home, cluster.url)
        three_runs(syncing)
        syncing.run(table(0, 30_000))
        held = [node.ask("DBSIZE") for node in cluster.nodes]
        assert all(held), f"the blobs are not spread: {held}"

    def test_a_cluster_by_option(self, tmp_path: Path, home: Path, cluster: ValkeyCluster) -> None:
        url = f"redis://127.0.0.1:{cluster.nodes[2].port}?cluster=true&prefix=other"
        three_runs(Syncing(tmp_path, home, url))

    def test_postgresql(self, tmp_path: Path, home: Path, postgresql_url: str) -> None:
        three_runs(Syncing(tmp_path, home, postgresql_url))
        assert not (home / "signatures").exists()

    def test_a_sentinel_that_fails_over(self, tmp_path: Path, home: Path) -> None:
        with Sentinel() as watched:
            syncing = Syncing(tmp_path, home, watched.url)
            three_runs(syncing)
            watched.wait_for_copy()
            watched.master.kill()
            after = syncing.run(table(10, 3020))
            assert (after.baseline, after.counts.created, after.counts.updated) == ("found", 10, 90)
            assert watched.replica.ask("ROLE")[0] == b"master"


class TestKeys:
    def test_each_expires_and_manifests_before_segments(
        self, syncing: Syncing, valkey_server: RedisServer
    ) -> None:
        three_runs(syncing)
        day = 24 * 3600
        for key in valkey_server.ask("KEYS", "*"):
            left = valkey_server.ask("TTL", key)
            if b":object:manifest-" in key or key.endswith(b":pointer"):
                assert 7 * day - 60 < left <= 7 * day
            elif not key.endswith((b":syncs", b":names")):
                assert 7 * day + 60 < left <= 7 * day + 3600
            else:
                assert left > 7 * day + 60
        assert (
            valkey_server.ask("INFO", "commandstats").keys().isdisjoint({"cmdstat_del", "cmdstat_smembers"})
        )

    def test_they_take_less_than_100_bytes_a_record(
        self, syncing: Syncing, valkey_server: RedisServer
    ) -> None:
        rows = 100_000
        before = valkey_server.ask("INFO", "memory")["used_memory"]
        syncing.run(table(0, rows))
        assert (valkey_server.ask("INFO", "memory")["used_memory"] - before) / rows < 100

    def test_no_command_holds_the_server_up(self, syncing: Syncing, valkey_server: RedisServer) -> None:
        valkey_server.ask("CONFIG", "SET", "slowlog-log-slower-than", 10_000)
        syncing.run(table(0, 100_000))
        # The log goes by the clock, and a busy machine may stop the server in the middle of any command.
        for attempt in range(4):
            valkey_server.ask("SLOWLOG", "RESET")
            (syncing.home / "cache").rename(syncing.folder / f"gone-{attempt}")
            syncing.run(table(attempt, 100_000 + attempt))
            slow = valkey_server.ask("SLOWLOG", "GET")
            if not slow:
                break
        assert slow == []

    def test_what_the_last_run_left_is_not_fetched_again(
        self, syncing: Syncing, valkey_server: RedisServer
    ) -> None:
        three_runs(syncing)
        valkey_server.ask("CONFIG", "RESETSTAT")
        assert syncing.run(table(10, 3020)).baseline == "found"
        assert "cmdstat_mget" not in valkey_server.ask("INFO", "commandstats")
        (syncing.home / "cache").rename(syncing.folder / "gone")
        assert counts(syncing.run(table(10, 3020))) == (0, 0, 0, 3010)
        assert valkey_server.ask("INFO", "commandstats")["cmdstat_mget"]["calls"] > 0

    def test_a_damaged_local_copy_is_fetched_again(self, syncing: Syncing) -> None:
        three_runs(syncing)
        for path in (syncing.home / "cache").rglob("*.arrow"):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        assert counts(syncing.run(table(10, 3020))) == (10, 90, 0, 2910)

    def test_local_copies_are_few(self, syncing: Syncing) -> None:
        for number in range(12):
            syncing.run(table(number, 100 + number))
        copies = [path for path in (syncing.home / "cache").glob("*/*.*") if path.name != ".in-use"]
        assert 0 < len(copies) <= 8

    def test_reset_and_retention_remove_them(self, syncing: Syncing, valkey_server: RedisServer) -> None:
        three_runs(syncing)
        assert (
            main(["reset", "s", "--yes", "--home", str(syncing.home), "--signatures", syncing.signatures])
            == 0
        )
        left = [key for key in valkey_server.ask("KEYS", "*") if b":object:" in key]
        # Retention keeps what `rollback` may go back to.
        assert left


class TestIntervals:
    def set_back(self, syncing: Syncing, days: float) -> None:
        """Let all runs of the database have been some days earlier."""
        database = sqlite3.connect(syncing.home / "rundiff.sqlite")
        with database:
            found = database.execute("SELECT run, finished_at FROM runs").fetchall()
            for number, at in found:
                earlier = datetime.fromisoformat(str(at)) - timedelta(days=days)
                database.execute(
                    "UPDATE runs SET finished_at = ? WHERE run = ?", (earlier.isoformat(), number)
                )
        database.close()

    def test_rare_runs_are_warned_and_kept_for_longer(
        self, syncing: Syncing, valkey_server: RedisServer
    ) -> None:
        syncing.run(table(0, 100))
        self.set_back(syncing, 3)
        assert syncing.run(table(0, 100)).warnings == ()
        self.set_back(syncing, 5)
        [warning] = syncing.run(table(0, 100)).warnings
        assert re.search(r"sync s last ran 5.0 days ago, .* for only 9.0 days", warning)
        longest = max(
            valkey_server.ask("TTL", key) for key in valkey_server.ask("KEYS", "*:object:manifest-*")
        )
        assert longest > 14 * 24 * 3600


class TestMessages:
    def test_a_wrong_password_is_told_without_it(self, tmp_path: Path, home: Path) -> None:
        with RedisServer("redis", requirepass=PASSWORD) as server:
            wrong = server.url.replace(PASSWORD, "hunter2")
            with pytest.raises(StorageError, match="refuses the login") as caught:
                Syncing(tmp_path, home, wrong).run(table(0, 3))
        assert "hunter2" not in str(caught.value)
        assert not (tmp_path / "d.db").exists()

    def test_an_untrusted_certificate_is_told_at_once(self, tmp_path: Path, home: Path) -> None:
        with RedisServer("redis", tls=True) as server:
            url = server.url.partition("?")[0]
            with pytest.raises(StorageError, match="CERTIFICATE_VERIFY_FAILED"):
                Syncing(tmp_path, home, url).run(table(0, 3))
            three_runs(Syncing(tmp_path, home, url + "?cert_reqs=none"))

    @pytest.mark.parametrize(
        "nobody",
        [
            "redis://:hunter2@127.0.0.1:1",
            "rediss://:hunter2@127.0.0.1:1",
            "redis+cluster://:hunter2@127.0.0.1:1,127.0.0.1:2",
            "redis+sentinel://:hunter2@127.0.0.1:1/mine",
            "unix://:hunter2@/no/such.sock",
        ],
    )
    def test_nobody_there_is_not_lost(
        self, syncing: Syncing, monkeypatch: pytest.MonkeyPatch, nobody: str
    ) -> None:
        three_runs(syncing)
        before = syncing.ids()
        monkeypatch.setattr(redis_link, "PATIENT", (0.01,))
        there, syncing.signatures = syncing.signatures, nobody
        with pytest.raises(StorageError, match="can't be used") as caught:
            syncing.run(table(0, 3))
        assert "hunter2" not in str(caught.value)
        assert syncing.ids() == before
        syncing.signatures = there
        assert syncing.run(table(10, 3020)).baseline == "found"

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("redis://h?colour=red", "unknown option 'colour'"),
            ("redis://h:port", "port"),
            ("redis://h/name", "whole number"),
            ("redis://h?ca_certs=x", "begin its URL with rediss"),
            ("redis://h1,h2", "several hosts"),
            ("redis+sentinel://h", "name of the service"),
            ("redis+cluster://h/3", "only database 0"),
            ("redis://h?prefix={a}", "prefix"),
            ("redis://h?timeout=long", "seconds"),
            ("redis://h?cluster=maybe", "true or false"),
            ("rediss://h?cert_reqs=maybe", "cert_reqs"),
        ],
    )
    def test_urls_that_say_nothing_useful(self, url: str, says: str) -> None:
        with pytest.raises(ConfigurationError, match=re.escape(says)):
            read_place(url)

    def test_urls(self) -> None:
        place = read_place(
            "rediss+sentinel://me:p%40ss@a,b:7/mine/2?prefix=x&timeout=3&sentinel_password=other"
        )
        assert (place.kind, place.hosts, place.service, place.db) == (
            "sentinel",
            (("a", 26379), ("b", 7)),
            "mine",
            2,
        )
        assert (place.username, place.password, place.prefix, place.timeout) == ("me", "p@ss", "x", 3)
        assert (place.sentinel, place.tls is not None) == ({"password": "other"}, True)
        assert "p@ss" not in repr(place)
        place = read_place("redis://[::1]:7000/3")
        assert (place.hosts, place.db, place.username, place.password) == ((("::1", 7000),), 3, None, None)
        place = read_place("unix://:pw@/run/r.sock?db=2")
        assert (place.path, place.password, place.db) == ("/run/r.sock", "pw", 2)
        assert read_place("valkeys://h").tls is not None


class TestDoctor:
    def look(self, capsys: Captured, signatures: str) -> tuple[int, dict[str, str]]:
        code = main(["doctor", "--json", "--signatures", signatures])
        out = capsys.readouterr().out
        assert PASSWORD not in out
        found = {each["check"]: each for each in map(json.loads, out.splitlines())}
        return code, found["signatures"]

    def test_it_tells_version_and_place(self, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_link, "PATIENT", (0.01,))
        with RedisServer("redis", requirepass=PASSWORD) as server:
            code, found = self.look(capsys, server.url)
            assert (code, found["health"]) == (0, "ok")
            assert found["says"] == f"Redis 7.0.15: redis://127.0.0.1:{server.port}/0"
            server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
            code, found = self.look(capsys, server.url)
            assert (code, found["health"]) == (0, "warning")
            assert "maxmemory-policy is volatile-lru" in found["says"]
            server.kill()
            code, found = self.look(capsys, server.url)
            assert (code, found["health"]) == (1, "broken")

    def test_it_knows_postgresql(self, capsys: Captured, postgresql_url: str) -> None:
        code, found = self.look(capsys, postgresql_url)
        assert (code, found["health"]) == (0, "ok")
        assert found["says"].startswith("PostgreSQL 18")

    def test_the_command_takes_the_store_by_flag(self, syncing: Syncing, capsys: Captured) -> None:
        source = syncing.folder / "people.csv"
        source.write_text("id,name\n1,Ada\n2,Grace\n")
        command = [
            "sync",
            str(source),
            "--key",
            "id",
            "--to",
            f"sqlite:///{syncing.folder}/d.db",
            "--into",
            "t",
        ]
        command += ["--signatures", syncing.signatures, "--json"]
        for created in (2, 0):
            assert main(command) == 0
            assert json.loads(capsys.readouterr().out)["created"] == created


def test_connections_cut_in_the_middle_of_pipelines(syncing: Syncing, valkey_server: RedisServer) -> None:
    with CuttingProxy(valkey_server.port) as proxy:
        syncing.signatures = valkey_server.url_at(proxy.port)
        proxy.cut_after(400_000, times=4)
        syncing.run(table(0, 30_000))
        assert proxy.cut == 4
        (syncing.home / "cache").rename(syncing.folder / "gone")
        proxy.cut_after(300_000, times=4)
        assert counts(syncing.run(table(10, 30_010))) == (10, 0, 10, 29_990)
        assert proxy.cut == 8
    syncing.signatures = valkey_server.url
    assert counts(syncing.run(table(10, 30_010))) == (0, 0, 0, 30_000)


class TestWorkers:
    """Workers with homes of their own, which share a PostgreSQL and a Valkey."""

    def test_they_go_on_where_the_last_one_ended(
        self, tmp_path: Path, valkey_url: str, postgresql_url: str, valkey_server: RedisServer
    ) -> None:
        for number in range(4):
            worker = Syncing(tmp_path, tmp_path / f"home-{number}", valkey_url)
            expected = (3000, 0, 0, 0) if number == 0 else (10, 0, 10, 2990)
            found = worker.run(table(number * 10, 3000 + number * 10), database=postgresql_url)
            assert counts(found) == expected
        assert "cmdstat_mget" in valkey_server.ask("INFO", "commandstats")

    def test_doctor_knows_both(self, capsys: Captured, valkey_url: str, postgresql_url: str) -> None:
        assert main(["migrate", "--database", postgresql_url]) == 0
        capsys.readouterr()
        assert main(["doctor", "--json", "--database", postgresql_url, "--signatures", valkey_url]) == 0
        out = capsys.readouterr().out
        found = {each["check"]: each["says"] for each in map(json.loads, out.splitlines())}
        assert re.fullmatch(r"PostgreSQL 18[.0-9]*: postgresql://\S+, no syncs|.*0 syncs", found["database"])
        assert found["signatures"].startswith("Valkey 9.1")
        assert PASSWORD not in out
