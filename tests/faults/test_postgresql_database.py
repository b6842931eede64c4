"""A PostgreSQL database that goes away, and workers that lose their lease, with real servers and processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rundiff import Sync
from rundiff.database.contract import Acknowledged
from rundiff.database.postgresql import PostgresqlDatabase
from rundiff.engine.workspace import Workspace
from rundiff.errors import StorageError
from rundiff.settings import Storage
from rundiff.testing.databases import NOW, a_failure, a_sync
from tests.servers.postgresql import PASSWORD, PostgresqlServer

Row = dict[str, Any]


def rows(*ids: int) -> list[Row]:
    return [{"id": each, "v": "a"} for each in ids]


class World:
    """One sync whose state is in PostgreSQL."""

    def __init__(self, folder: Path, server: PostgresqlServer) -> None:
        self.folder, self.server = folder, server
        self.url = server.create_database()

    @property
    def options(self) -> dict[str, Any]:
        return {
            "name": "s",
            "destination": f"sqlite:///{self.folder / 'd.db'}",
            "into": "t",
            "home": str(self.folder / "home"),
            "database": self.url,
        }

    def run(self, source: Any, **options: Any) -> Any:
        return Sync(source, "id", **{**self.options, **options}).run()

    def delivered(self) -> list[int]:
        with contextlib.closing(sqlite3.connect(self.folder / "d.db")) as database:
            return sorted(row[0] for row in database.execute("SELECT id FROM t"))

    def statuses(self) -> dict[str, int]:
        with psycopg.connect(self.url) as connection:
            return dict(
                connection.execute("SELECT status, count(*) FROM sync_write_records GROUP BY 1").fetchall()
            )

    def end_leases(self) -> None:
        """Let time pass: the leases of runs that could not give them back end."""
        with psycopg.connect(self.url) as connection:
            connection.execute("UPDATE rundiff_leases SET expires_at = now()")

    def workspace(self) -> Workspace:
        return Workspace(Storage(home=str(self.folder / "home"), database=self.url))


@pytest.fixture
def world(tmp_path: Path, postgresql_server: PostgresqlServer) -> World:
    return World(tmp_path, postgresql_server)


# The server goes away


def restart(server: PostgresqlServer) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("fault", [restart, PostgresqlServer.drop_connections], ids=["killed", "dropped"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_the_server_comes_back_while_a_run_reads(
    world: World, fault: Callable[[PostgresqlServer], object], first: bool
) -> None:
    """The run goes on where it was: nothing of it was committed, or all."""
    before = [] if first else rows(*range(5, 20))
    if before:
        world.run(before)

    def source() -> Iterator[Row]:
        for row in rows(*range(10, 30)):
            if row["id"] == 20:
                fault(world.server)
            yield row

    run = world.run(source())
    assert (run.status, run.error) == ("committed", None)
    assert world.delivered() == list(range(10, 30))
    assert world.run(rows(*range(10, 30))).counts.unchanged == 20
    assert set(world.statuses()) == {"written"}


@pytest.mark.parametrize("fault", ["kill", "drop_connections"])
def test_any_moment(world: World, fault: str) -> None:
    """Connections drop, or the server is killed and restarted, again and again while syncs run."""
    stop = threading.Event()

    def trouble() -> None:
        while not stop.wait(0.15):
            if fault == "kill":
                world.server.kill()
                time.sleep(0.05)
                world.server.start()
            else:
                with contextlib.suppress(psycopg.Error):
                    world.server.drop_connections()

    world.run(rows(*range(100)))
    thread = threading.Thread(target=trouble)
    thread.start()
    numbers = []
    try:
        # Opened before: a server that was never reached is not waited for.
        with world.workspace() as workspace:
            for turn in range(1, 6):
                source = rows(*range(turn, 100 + turn))
                settings = Sync(source, "id", **world.options, batch_size=1)._settings
                numbers.append(workspace.run(settings).run)
    finally:
        stop.set()
        thread.join()
    assert numbers == [2, 3, 4, 5, 6]
    assert world.delivered() == list(range(5, 105))
    assert world.statuses() == {"written": 110}
    with world.workspace() as workspace:
        assert [view.result.status for view in workspace.runs("s")] == ["committed"] * 6
        assert workspace.rebuild("s") == 100


def test_the_server_stays_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run fails with a sentence, changes nothing, and the next one does it all."""
    monkeypatch.setattr("rundiff.database.server.PATIENCE_SECONDS", 0.3)
    world.run(rows(1))

    def source() -> Iterator[Row]:
        yield from rows(1)
        world.server.stop()
        yield from rows(2)

    try:
        with pytest.raises(StorageError, match=r"can't be reached .*run again") as caught:
            world.run(source())
        assert PASSWORD not in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(StorageError, match="can't be reached"):
            world.workspace()
        assert world.delivered() == [1]
    finally:
        world.server.start()
    world.end_leases()
    assert world.run(rows(1, 2)).counts.created == 1
    with world.workspace() as workspace:
        assert [view.result.status for view in workspace.runs("s")] == ["committed", "discarded", "committed"]


def test_it_stays_away_while_a_run_delivers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the destination has stays; the next run delivers the rest, from another machine."""
    from rundiff.destinations.sql import SqlDestination

    monkeypatch.setattr("rundiff.database.server.PATIENCE_SECONDS", 0.3)
    deliver = SqlDestination.deliver
    batches = iter(range(100))

    def stopping(self: Any, *arguments: Any) -> Any:
        if next(batches) == 2:
            world.server.kill()
        return deliver(self, *arguments)

    try:
        with monkeypatch.context() as patched:
            patched.setattr(SqlDestination, "deliver", stopping)
            with pytest.raises(StorageError):
                world.run(rows(*range(10)), batch_size=2)
        assert len(world.delivered()) == 6
    finally:
        world.server.start()
    signatures = world.folder / "home" / "signatures"
    other = world.folder / "other"
    other.mkdir()
    (other / "signatures").symlink_to(signatures)
    world.end_leases()
    run = world.run(rows(*range(11)), home=str(other))
    assert (run.run, run.counts.created) == (2, 1)
    assert "its delivery was finished first" in run.warnings[0]
    assert world.delivered() == list(range(11))
    assert world.statuses() == {"written": 11}


# Transactions whose end nobody heard of


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_without_an_answer(world: World, committed: bool) -> None:
    """The connection breaks at COMMIT: the server knows whether it was done, and it is done once."""
    database = PostgresqlDatabase(world.url)
    sync = database.create(a_sync())
    token = database.acquire(sync.sync_id, "me", NOW)
    run = database.begin_run(sync.sync_id, token, "sync", NOW)  # type: ignore[arg-type]
    breaking(database, committed)
    assert database.begin_run(sync.sync_id, token, "sync", NOW) == run + 1  # type: ignore[arg-type]
    breaking(database, committed)
    database.add_failures(sync.sync_id, token, [a_failure(run, 1)])
    assert [failure.attempts for failure in database.failures(sync.sync_id)] == [1]
    breaking(database, committed)
    assert database.acquire(sync.sync_id, "again", NOW, over=True) == token + 1
    assert [each.run for each in database.runs(sync.sync_id)] == [run + 1, run]
    database.close()


def breaking(database: PostgresqlDatabase, committed: bool) -> None:
    """Let the next COMMIT reach the server or not, and lose the answer."""
    connection = database._server._open()

    class Breaking(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            if query != "COMMIT":
                return super().execute(query, *arguments, **options)
            if committed:
                super().execute(query)
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    connection.cursor_factory = Breaking


# Workers that lose their lease

WORKER = """
import json, sys, time
from pathlib import Path
from rundiff import Sync
from rundiff.errors import RundiffError

options, folder, shape = json.loads(sys.argv[1])
(Path(folder) / "clock").write_text(str(time.time()))

def source():
    for number in range(4):
        yield {"id": number, "v": shape}
        if number == 1:
            (Path(folder) / "reading").touch()
            while not (Path(folder) / "go").exists():
                time.sleep(0.02)
            # Stopped and continued in between: what is written from here on comes too late.
try:
    run = Sync(source(), "id", **options).run()
    print(json.dumps(["done", run.run, run.status]))
except RundiffError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


class Worker:
    """A process that waits in the middle of its reading until it may go on."""

    def __init__(self, world: World, *, shape: str = "b", environment: Any = (), **options: Any) -> None:
        self.folder = world.folder / f"worker-{time.monotonic_ns()}"
        self.folder.mkdir()
        given = [{**world.options, **options}, str(self.folder), shape]
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(given)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict(environment)},
        )
        deadline = time.monotonic() + 30
        while not (self.folder / "reading").exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def finish(self) -> list[Any]:
        (self.folder / "go").touch()
        out, _ = self.process.communicate(timeout=60)
        said: list[Any] = json.loads(out)
        return said


@contextlib.contextmanager
def working(world: World, **options: Any) -> Iterator[Worker]:
    worker = Worker(world, **options)
    try:
        yield worker
    finally:
        worker.process.kill()
        worker.process.communicate()


def test_a_worker_that_was_stopped_past_its_lease_is_refused(world: World) -> None:
    """SIGSTOP, a successor, SIGCONT: nothing that the stopped one writes counts."""
    world.url += "?lease_seconds=1"
    world.run(rows(0, 1))
    with working(world) as worker:
        worker.process.send_signal(signal.SIGSTOP)
        run = world.run(rows(0, 1, 7), wait=True)
        assert (run.run, run.status) == (3, "committed")
        worker.process.send_signal(signal.SIGCONT)
        said = worker.finish()
    assert said[0] == "Fenced"
    assert "another run has taken this sync over" in said[1]
    assert world.delivered() == [0, 1, 7]
    with world.workspace() as workspace:
        states = [view.result.status for view in workspace.runs("s")]
        assert states == ["committed", "discarded", "committed"]
        assert workspace.syncs()[0].running is None
    assert world.run(rows(0, 1, 7)).counts.unchanged == 3


def test_a_worker_that_was_killed_is_succeeded_after_its_lease(world: World) -> None:
    world.url += "?lease_seconds=1.5"
    world.run(rows(0, 1))
    with working(world) as worker:
        worker.process.kill()
        worker.process.wait()
        began = time.monotonic()
        run = world.run(rows(0, 1, 7), wait=True)
        assert run.status == "committed"
        assert time.monotonic() - began < 10
    assert world.delivered() == [0, 1, 7]


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(which, now);
    if (!failed && which == CLOCK_REALTIME) now->tv_sec += atol(getenv("MOVED_DAYS")) * 86400;
    return failed;
}
"""


@pytest.fixture(scope="module")
def moved_clock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library that moves the clock of the processes that load it, and of no others."""
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"], cwd=folder, check=True)
    return str(folder / "clock.so")


@pytest.mark.parametrize("days", [8, -8])
def test_a_clock_that_was_moved_changes_nothing(world: World, moved_clock: str, days: int) -> None:
    """Leases, retention and what was written rest on the server's clock."""
    environment = {"LD_PRELOAD": moved_clock, "MOVED_DAYS": str(days)}
    world.run(rows(0, 1))
    world.run([*rows(0), {"id": 1, "v": "c"}])
    with working(world, environment=environment) as worker:
        ahead = float((worker.folder / "clock").read_text()) - time.time()
        assert round(ahead / 86400) == days
        with pytest.raises(Exception, match="another run of sync s is under way"):
            world.run(rows(0, 1))
        assert worker.finish() == ["done", 3, "committed"]
    with world.workspace() as workspace:
        times = [view.started_at for view in workspace.runs("s")]
        assert times == sorted(times, reverse=True)
        assert (times[0] - times[-1]).days == 0
        # What retention keeps is there still: each baseline can be gone back to.
        with psycopg.connect(world.url) as connection:
            manifests = [name for (name,) in connection.execute("SELECT manifest FROM rundiff_runs")]
        sync = workspace.syncs()[0]
        kept = {path.name for path in (world.folder / "home" / "signatures" / sync.sync_id).iterdir()}
        assert set(manifests) <= kept
    # Only the destination's own mark is not that of run 1 any more.
    assert world.run(rows(0, 1, 2, 3)).run == 4


def test_acknowledgements_survive_the_server(world: World) -> None:
    """What a method has done when it returns is there after the server was killed."""
    database = PostgresqlDatabase(world.url)
    sync = database.create(a_sync())
    token = database.acquire(sync.sync_id, "me", NOW)
    database.acknowledge(sync.sync_id, token, Acknowledged(1, 5))
    restart(world.server)
    assert database.get(sync.sync_id).acknowledged == Acknowledged(1, 5)
    database.heartbeat(sync.sync_id, token, NOW)
    database.release(sync.sync_id, token)
    database.close()
