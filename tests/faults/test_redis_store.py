"""What a Redis or Valkey may do to a baseline: no wrong delete, no lost change, and a message that tells."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import rundiff
from rundiff.cli import main
from rundiff.engine.workspace import Workspace
from rundiff.errors import BaselineLost, StorageError
from rundiff.settings import Storage
from rundiff.stores import redis_link
from tests.faults.worlds import World, rows
from tests.servers.valkey import RedisServer

ALWAYS = {"appendonly": "yes", "appendfsync": "always"}


class OnRedis(World):
    """A world whose baselines are on a server."""

    server: RedisServer

    def sync(self, source: Any, **options: Any) -> rundiff.Sync:
        return super().sync(source, signatures=self.server.url, **options)

    def workspace(self) -> Workspace:
        return Workspace(Storage(home=str(self.home), signatures=self.server.url))

    def rebuild(self) -> int:
        with self.workspace() as workspace:
            return workspace.rebuild("s")

    def keys(self, pattern: str) -> list[bytes]:
        return sorted(self.server.ask("KEYS", pattern))

    def forget_copies(self) -> None:
        shutil.rmtree(self.home / "cache")

    def earlier(self, days: float) -> None:
        """Let all runs of the database have been some days earlier."""
        database = sqlite3.connect(self.home / "rundiff.sqlite")
        with database:
            for number, at in database.execute("SELECT run, finished_at FROM runs").fetchall():
                moved = (datetime.fromisoformat(str(at)) - timedelta(days=days)).isoformat()
                database.execute("UPDATE runs SET finished_at = ? WHERE run = ?", (moved, number))
        database.close()

    def is_lost(self, says: str) -> None:
        """Check that a run fails with that reason, writes nothing, and that the way out works."""
        before = self.table()
        with pytest.raises(BaselineLost, match=says) as caught:
            self.run(rows(1))
        assert "rundiff rebuild s" in str(caught.value)
        assert "--on-lost-baseline" in str(caught.value)
        assert self.table() == before
        assert self.rebuild() == len(before)
        assert self.table() == before
        result = self.run(rows(*before), max_updates_percent=100)
        assert (result.baseline, result.counts.created, result.counts.deleted) == ("found", 0, 0)
        gone = self.run(rows(*list(before)[1:]))
        assert gone.counts.deleted == 1
        assert len(self.table()) == len(before) - 1


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with RedisServer(**getattr(request, "param", {})) as server:
        yield server


@pytest.fixture
def on_redis(tmp_path: Path, server: RedisServer) -> OnRedis:
    made = OnRedis(tmp_path)
    made.server = server
    return made


def three_runs(world: World) -> None:
    world.run(rows(1, 2, 3, 4, 5))
    world.run(rows(1, 2, 3, 4))
    world.run([*rows(1, 2, 3), *rows(4, v="b")])


def during(source: list[Any], act: Callable[[], Any]) -> Iterator[Any]:
    """Give rows, and do something after the second."""
    for number, row in enumerate(source):
        if number == 2:
            act()
        yield row


class TestFlushed:
    @pytest.mark.parametrize("copies", [True, False], ids=["with local copies", "without"])
    def test_between_runs(self, on_redis: OnRedis, *, copies: bool) -> None:
        three_runs(on_redis)
        on_redis.server.ask("FLUSHALL")
        if not copies:
            on_redis.forget_copies()
        on_redis.is_lost("is missing: the server was flushed, or is another one")

    @pytest.mark.parametrize("policy", ["rebaseline", "resend"])
    def test_policies_act_and_delete_nothing(self, on_redis: OnRedis, policy: str) -> None:
        three_runs(on_redis)
        on_redis.server.ask("FLUSHALL")
        result = on_redis.run(rows(1, 2), on_lost_baseline=policy)
        assert (result.baseline, result.counts.deleted) == ("lost", 0)
        assert on_redis.table() == {1: "a", 2: "a", 3: "a", 4: "b"}
        assert on_redis.run(rows(1, 2)).baseline == "found"

    def test_while_a_run_reads(self, on_redis: OnRedis) -> None:
        three_runs(on_redis)
        flush = lambda: on_redis.server.ask("FLUSHALL")  # noqa: E731 -- reads as a step
        result = on_redis.run(during(rows(1, 2, 3, 6), flush))
        assert (result.counts.created, result.counts.deleted) == (1, 1)
        assert on_redis.table() == {1: "a", 2: "a", 3: "a", 6: "a"}
        [warning] = result.warnings
        assert "lost the baseline of sync s during this run" in warning
        assert "`rundiff rebuild s`" in warning
        on_redis.is_lost("is missing")

    def test_while_a_run_delivers(self, on_redis: OnRedis) -> None:
        def run(source: Any, act: Callable[[], Any] | None = None) -> tuple[list[Any], rundiff.Run | None]:
            changes = rundiff.changes(
                source, primary_key="id", name="s", home=on_redis.home, signatures=on_redis.server.url
            )
            taken = []
            for change in changes:
                taken.append((change.destination_action, change.primary_key["id"]))
                if act is not None and len(taken) == 1:
                    act()
            return taken, changes.result

        run(rows(1, 2, 3))
        taken, result = run(rows(1, 4, 5), lambda: on_redis.server.ask("FLUSHALL"))
        assert sorted(taken) == [("create", 4), ("create", 5), ("delete", 2), ("delete", 3)]
        assert result is not None
        assert "lost the baseline" in result.warnings[0]
        with pytest.raises(BaselineLost, match="flushed"):
            run(rows(1))
        on_redis.rebuild()
        assert run(rows(1, 4))[0] == [("delete", 5)]

    def test_a_database_lost_with_its_home_is_not_a_first_run(self, on_redis: OnRedis) -> None:
        three_runs(on_redis)
        shutil.rmtree(on_redis.home)
        with pytest.raises(BaselineLost):
            on_redis.run(rows(1))
        assert len(on_redis.table()) == 4

    def test_an_older_database_is_told_by_the_store(self, on_redis: OnRedis) -> None:
        on_redis.run(rows(1, 2, 3, 4))
        on_redis.keep("home/rundiff.sqlite", "d.db")
        on_redis.run(rows(1, 2, 3))
        on_redis.restore("home/rundiff.sqlite", "d.db")
        with pytest.raises(BaselineLost, match="newer baseline than the database knows"):
            on_redis.run(rows(1, 2))
        assert len(on_redis.table()) == 4


class TestExpired:
    def test_all_of_it(self, on_redis: OnRedis) -> None:
        three_runs(on_redis)
        for key in on_redis.keys("*"):
            on_redis.server.ask("PEXPIRE", key, 1)
        on_redis.earlier(8)
        on_redis.is_lost(r"it has expired: it was kept for 7 days after the last run, which was 8 days ago")

    @pytest.mark.parametrize(
        "part", ["*:object:manifest-*", "*:object:base-*", "*:object:overlay-*", "*:names"]
    )
    def test_a_part_of_it(self, on_redis: OnRedis, part: str) -> None:
        on_redis.run(rows(*range(1, 51)))
        on_redis.run(rows(*range(2, 51)))
        for key in on_redis.keys(part):
            on_redis.server.ask("PEXPIRE", key, 1)
        on_redis.earlier(8)
        if part == "*:names":
            # Only a list, which is made again.
            assert on_redis.run(rows(*range(2, 51))).baseline == "found"
            return
        on_redis.is_lost("is missing: it has expired")


class TestEvicted:
    def fill(self, server: RedisServer, policy: str) -> None:
        """Set a limit a little above what is held, and write until keys are dropped."""
        used = int(server.ask("INFO", "memory")["used_memory"])
        server.ask("CONFIG", "SET", "maxmemory", used + 500_000)
        server.ask("CONFIG", "SET", "maxmemory-policy", policy)
        for number in range(400):
            server.ask("SET", f"other:{number}", bytes(20_000), "EX", 1_000_000)

    @pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
    def test_it_is_told_and_the_policy_is_warned_of(self, on_redis: OnRedis, policy: str) -> None:
        three_runs(on_redis)
        on_redis.server.ask("CONFIG", "SET", "maxmemory-policy", policy)
        [warning] = on_redis.run([*rows(1, 2, 3), *rows(4, v="b")]).warnings
        assert f"maxmemory-policy is {policy}" in warning
        self.fill(on_redis.server, policy)
        assert on_redis.keys("*:object:*") == []
        before = on_redis.table()
        with pytest.raises(BaselineLost, match=rf"evicted it: .* {policy}, and it has dropped \d+ keys"):
            on_redis.run(rows(1))
        assert on_redis.table() == before
        on_redis.server.ask("FLUSHALL")
        assert on_redis.rebuild() == 4

    def test_one_blob_is_enough_in_spite_of_local_copies(self, on_redis: OnRedis) -> None:
        on_redis.run(rows(*range(1, 1001)))
        blobs = on_redis.keys("*:base-*:[0-9]*")
        assert len(blobs) > 2
        on_redis.server.ask("UNLINK", blobs[1])
        on_redis.is_lost("is missing")

    def test_a_full_server_that_evicts_nothing(self, on_redis: OnRedis) -> None:
        three_runs(on_redis)
        before = on_redis.table()
        on_redis.server.ask("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(StorageError, match=r"is full .*Nothing is lost"):
            on_redis.run(rows(1, 2, 3, 6))
        assert on_redis.table() == before
        on_redis.server.ask("CONFIG", "SET", "maxmemory", 0)
        result = on_redis.run(rows(1, 2, 3, 6))
        assert (result.counts.created, result.counts.deleted) == (1, 1)


@pytest.mark.parametrize("server", [ALWAYS], indirect=True, ids=["appendonly"])
class TestDurableServerKilled:
    def test_and_started_again_while_a_run_reads(self, on_redis: OnRedis) -> None:
        three_runs(on_redis)

        def restart() -> None:
            on_redis.server.kill()
            on_redis.server.start()

        result = on_redis.run(during(rows(1, 2, 3, 6), restart))
        assert (result.warnings, result.counts.created, result.counts.deleted) == ((), 1, 1)
        assert on_redis.run(rows(1, 2, 3, 6)).counts.unchanged == 4

    def test_and_gone_while_a_run_reads(self, on_redis: OnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
        three_runs(on_redis)
        monkeypatch.setattr(redis_link, "PATIENT", (0.01,))
        before = on_redis.table()
        with pytest.raises(StorageError, match="can't be used"):
            on_redis.run(during(rows(1, 2, 3, 6), on_redis.server.kill))
        assert on_redis.table() == before
        on_redis.server.start()
        result = on_redis.run(rows(1, 2, 3, 6))
        assert (result.baseline, result.counts.created, result.counts.deleted) == ("found", 1, 1)
        assert on_redis.table() == {1: "a", 2: "a", 3: "a", 6: "a"}

    def test_and_gone_while_a_run_delivers(self, on_redis: OnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
        three_runs(on_redis)
        monkeypatch.setattr(redis_link, "PATIENT", (0.01,))
        # The command's own process would be finished by the next run in the same way.
        with on_redis.workspace() as workspace:
            killed = []

            def kill(progress: Any) -> None:
                if progress.phase == "delivering" and not killed:
                    killed.append(progress)
                    on_redis.server.kill()

            settings = on_redis.sync(rows(1, 2, 3, 6))._settings
            with pytest.raises(StorageError, match="can't be used"):
                workspace.run(settings, kill)
        assert killed
        assert on_redis.table() == {1: "a", 2: "a", 3: "a", 6: "a"}
        on_redis.server.start()
        result = on_redis.run(rows(1, 2, 3, 6))
        assert (result.counts.created, result.counts.deleted, result.counts.unchanged) == (0, 0, 4)
        assert any("finished first" in warning for warning in result.warnings)


class TestForgetfulServer:
    def test_it_comes_up_empty(self, on_redis: OnRedis) -> None:
        three_runs(on_redis)
        on_redis.server.kill()
        on_redis.server.start()
        on_redis.earlier(0.01)
        on_redis.is_lost("started again .* and came up without it")

    def test_a_stale_copy_is_restored(self, on_redis: OnRedis) -> None:
        on_redis.run(rows(1, 2, 3, 4))
        on_redis.server.ask("SAVE")
        on_redis.run(rows(1, 2, 3))
        on_redis.run([*rows(1, 2), *rows(3, v="b")])
        on_redis.server.kill()
        on_redis.server.start()
        assert on_redis.keys("*:object:manifest-*")
        on_redis.is_lost(
            "is older than it should be: it ends with manifest-00000001, and the last run left manifest-0000000"
        )


class TestDamaged:
    def test_blobs_and_descriptions(self, on_redis: OnRedis) -> None:
        on_redis.run(rows(*range(1, 1001)))
        kept = {key: on_redis.server.ask("DUMP", key) for key in on_redis.keys("*:base-*")}
        for key, content in kept.items():
            on_redis.forget_copies()
            on_redis.server.ask("SET", key, b"x" * 100, "KEEPTTL")
            with pytest.raises(BaselineLost, match="damaged"):
                on_redis.run(rows(1))
            on_redis.server.ask("RESTORE", key, 10_000_000, content, "REPLACE")
        assert on_redis.run(rows(*range(1, 1001))).counts.unchanged == 1000


def test_looking_works_with_what_is_left(on_redis: OnRedis, capsys: pytest.CaptureFixture[str]) -> None:
    three_runs(on_redis)
    on_redis.server.ask("FLUSHALL")
    place = ["--home", str(on_redis.home), "--signatures", on_redis.server.url]
    for command in (["status"], ["runs"], ["show", "s"], ["history", "s", "4"]):
        assert main([*command, *place]) == 0, capsys.readouterr().err
    assert main(["rebuild", "s", *place]) == 0
    assert "4" in capsys.readouterr().out
