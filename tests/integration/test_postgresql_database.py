"""Whole syncs whose state is in PostgreSQL: the same as with the home directory, on any machine."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.servers.postgresql import PASSWORD, PostgresqlServer

import rundiff
from rundiff import Sync
from rundiff.cli import main
from rundiff.database.migrating import SCHEMA_VERSION
from rundiff.database.postgresql import PostgresqlDatabase
from rundiff.engine import sqlviews
from rundiff.engine.lease import Lease
from rundiff.engine.workspace import Workspace
from rundiff.errors import (
    BaselineLost,
    ConfigurationError,
    Fenced,
    MissingDriver,
    StateChanged,
    StorageError,
    SyncBusy,
)
from rundiff.settings import Storage
from rundiff.testing.databases import NOW, a_sync

Row = dict[str, Any]


def people(*ids: int, **values: Any) -> list[Row]:
    return [{"id": each, "name": f"n{each}", "odd": "a\0\\\t\n", **values} for each in ids]


class Team:
    """Machines that share a database and a signature store, and deliver to one destination."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.destination = folder / "crm.db"

    def machine(self, name: str = "one") -> Path:
        """A home directory; the signatures are on a shared disk."""
        home = self.folder / name
        if not home.exists():
            (self.folder / "signatures").mkdir(exist_ok=True)
            home.mkdir()
            (home / "signatures").symlink_to(self.folder / "signatures")
        return home

    def sync(self, rows: Any, machine: str = "one", **options: Any) -> Sync:
        return Sync(
            rows,
            "id",
            name="people",
            destination=f"sqlite:///{self.destination}",
            into="people",
            home=self.machine(machine),
            database=self.url,
            **options,
        )

    def workspace(self, machine: str = "one") -> Workspace:
        return Workspace(Storage(home=str(self.machine(machine)), database=self.url))

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement).fetchall()

    def delivered(self) -> dict[int, str]:
        with contextlib.closing(sqlite3.connect(self.destination)) as database:
            return dict(database.execute("SELECT id, name FROM people").fetchall())


@pytest.fixture
def team(tmp_path: Path, postgresql_url: str) -> Team:
    return Team(tmp_path, postgresql_url)


def test_local_copies_are_bounded(
    team: Team, valkey_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of baselines and of write logs, when their users are done; nothing but time depends on them."""

    def copies() -> int:
        files = [*team.machine().glob("cache/*/*-*"), *team.machine().glob("syncs/*/log/*/*")]
        return sum(path.stat().st_size for path in files if path.is_file())

    def run(*ids: int) -> tuple[int, int, int]:
        counts = team.sync(people(*ids), signatures=valkey_url).run().counts
        return counts.created, counts.updated, counts.deleted

    assert run(*range(200)) == (200, 0, 0)
    assert copies() > 0
    monkeypatch.setenv("RUNDIFF_CACHE_LIMIT", "0B")
    assert run(*range(10, 205)) == (5, 0, 10)
    assert copies() == 0
    assert run(*range(20, 206)) == (1, 0, 10)
    assert copies() == 0
    assert set(team.delivered()) == set(range(20, 206))
    [_, deleted] = team.sync([], signatures=valkey_url).history({"id": 15})
    assert deleted.change.before == people(15)[0]
    monkeypatch.setenv("RUNDIFF_CACHE_LIMIT", "little")
    with pytest.raises(ConfigurationError, match='RUNDIFF_CACHE_LIMIT must look like "500MB" or "20GB"'):
        run(1)


def test_each_run_on_another_machine(team: Team) -> None:
    """Nothing that a run needs is left on the machine of the one before."""
    first = team.sync(people(*range(200)), "one").run()
    assert (first.status, first.counts.created) == ("committed", 200)
    rows = people(*range(5, 200))
    rows[0]["name"] = "changed"
    second = team.sync([*rows, *people(300)], "two").run()
    assert (second.run, second.counts.created, second.counts.updated, second.counts.deleted) == (2, 1, 1, 5)
    third = team.sync([*rows, *people(300)], "three").run()
    assert (third.baseline, third.counts.unchanged) == ("found", 196)
    assert team.delivered()[5] == "changed"
    assert set(team.delivered()) == {*range(5, 200), 300}
    entries = team.sync([], "four").history({"id": 5})
    assert [(e.run, e.change.action, e.change.changed_fields) for e in entries] == [
        (1, "insert", None),
        (2, "update", ("name",)),
    ]
    assert entries[1].change.before == people(5)[0]
    [deleted] = [e for e in team.sync([], "four").history({"id": 0}) if e.change.action == "delete"]
    assert deleted.change.before == people(0)[0]


def test_the_table_says_what_became_of_each_record(team: Team) -> None:
    team.sync(people(1, 2, 3)).run()
    team.sync([{**people(2)[0], "name": None}, *people(3, 4)]).run()
    assert team.query(
        "SELECT run_id, sequence, destination_action, status, attempts, error, primary_key::jsonb->>'id',"
        " changed_fields FROM sync_write_records WHERE run_id = 2 ORDER BY sequence"
    ) == [
        (2, 1, "delete", "written", 1, None, "1", None),
        (2, 2, "update", "written", 1, None, "2", ["name"]),
        (2, 3, "insert", "written", 1, None, "4", None),
    ]
    [(text,)] = team.query("SELECT data::text FROM sync_write_records WHERE run_id = 2 AND sequence = 2")
    # The escape of U+0000 survives in json, where jsonb would refuse the record.
    assert text == r'{"id":2,"name":null,"odd":"a\u0000\\\t\n"}'
    lengths = team.query(
        "SELECT DISTINCT length(primary_key_signature), length(data_signature) FROM sync_write_records"
    )
    assert lengths == [(32, 32)]


def test_the_indexes_are_there(team: Team) -> None:
    team.sync(people(1)).run()
    found = team.query("SELECT indexdef FROM pg_indexes WHERE tablename = 'sync_write_records'")
    columns = {definition.rpartition("(")[2].rstrip(")") for (definition,) in found}
    assert columns == {
        "sync_id, run_id, sequence",
        "primary_key_signature",
        "data_signature",
        "primary_key_signature, sync_id",
    }


def test_refused_records_are_failed_and_tried_again(team: Team) -> None:
    with contextlib.closing(sqlite3.connect(team.destination)) as database:
        database.executescript(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'bad'), odd)"
        )
    first = team.sync([*people(1, 2), *people(3, name="bad")]).run()
    assert (first.counts.written, first.counts.failed) == (2, 1)
    records = (
        "SELECT run_id, status, attempts, error IS NULL FROM sync_write_records ORDER BY run_id, sequence"
    )
    assert sorted(team.query(records)) == [
        (1, "failed", 1, False),
        (1, "written", 1, True),
        (1, "written", 1, True),
    ]
    with team.workspace("two") as workspace:
        assert workspace.syncs()[0].quarantined == 1
        ours = workspace.sql("SELECT status, count(*) AS n FROM sync_write_records GROUP BY 1 ORDER BY 1")
    assert ours.to_pylist() == [{"status": "failed", "n": 1}, {"status": "written", "n": 2}]
    second = team.sync(people(1, 2, 3), "two").run()
    assert (second.counts.created, second.counts.failed) == (1, 0)
    assert team.query(records)[-1] == (2, "written", 1, True)
    with team.workspace() as workspace:
        assert workspace.syncs()[0].quarantined == 0


def test_sql_fetches_what_it_needs(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    team.sync(people(*range(50))).run()
    team.sync(people(*range(52))).run()
    team.sync(people(*range(52))).run()

    def fetched(machine: str) -> int:
        return len([*team.machine(machine).glob("syncs/*/log/*")])

    count = "SELECT count(*) AS n FROM sync_write_records"
    with team.workspace("two") as workspace:
        assert workspace.sql("SELECT max(run) AS n FROM runs").to_pylist() == [{"n": 3}]
        assert fetched("two") == 0
        with pytest.raises(ConfigurationError, match="write sync_write_records out"):
            workspace.sql("SELECT * FROM query_table('sync_' || 'write_records')")
        assert workspace.sql(count, last=1).to_pylist() == [{"n": 2}]
        assert fetched("two") == 1
        assert workspace.sql(count, syncs=["people"]).to_pylist() == [{"n": 52}]
        with pytest.raises(ConfigurationError, match="other"):
            workspace.sql(count, syncs=["other"])
    monkeypatch.setattr(sqlviews, "MOST_FETCHED", 1_000)
    with team.workspace("two") as workspace:
        assert workspace.sql(count).to_pylist() == [{"n": 52}]
    with (
        team.workspace("three") as workspace,
        pytest.raises(
            ConfigurationError, match=r"of 2 runs, .* --last N and --sync NAME, or query the table"
        ),
    ):
        workspace.sql(count)
    assert fetched("three") == 0


def test_held_deletions_are_approved_on_another_machine(team: Team) -> None:
    team.sync(people(*range(200))).run()
    held = team.sync(people(*range(150))).run()
    assert (held.status, held.counts.deletes_held) == ("held", 50)
    with team.workspace("two") as workspace:
        [view] = workspace.syncs()
        assert view.held is not None
        assert (view.held.count, len(view.held.sample) > 0) == (50, True)
        with pytest.raises(StateChanged):
            workspace.approve("people", "0000")
        # An incomplete reading takes the keys that it read out of the set.
    again = team.sync(people(150, 151), "three", expected_rows=99).run()
    assert not again.complete
    with team.workspace("four") as workspace:
        [view] = workspace.syncs()
        assert view.held is not None
        assert view.held.count == 48
        approved = workspace.approve("people", view.held.digest)
    assert approved.counts.deleted == 48
    assert set(team.delivered()) == {*range(150), 150, 151}


def test_a_whole_held_run_is_approved_or_discarded_elsewhere(team: Team) -> None:
    team.sync(people(*range(10))).run()
    for machine, action in (("two", "discard"), ("three", "approve")):
        run = team.sync(people(*range(20)), max_creates_percent=10).run()
        assert (run.status, run.held_reason is not None) == ("held", True)
        with team.workspace(machine) as workspace:
            getattr(workspace, action)("people")
    assert len(team.delivered()) == 20
    assert team.query("SELECT count(*) FROM rundiff_logs WHERE kind = 'held'") == [(0,)]


def test_rebuild_and_rollback_elsewhere(team: Team) -> None:
    team.sync(people(1, 2)).run()
    kept = shutil.copy(team.destination, team.folder / "kept.db")
    team.sync(people(2, 3)).run()
    shutil.copy(kept, team.destination)
    with team.workspace("two") as workspace:
        workspace.rollback("people", 1)
    back = team.sync(people(2, 3), "three").run()
    assert (back.counts.created, back.counts.deleted) == (1, 1)
    for path in (team.folder / "signatures").glob("*/*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(BaselineLost):
        team.sync(people(2, 3)).run()
    with team.workspace("four") as workspace:
        assert workspace.rebuild("people") == 2
    assert team.sync(people(2, 3), "five").run().counts.unchanged == 2


def test_a_plan_is_applied(team: Team) -> None:
    team.sync(people(1, 2)).run()
    rows = [*people(1), *people(2, name="new")]
    plan = team.sync(rows, "two").plan(team.folder / "a.plan")
    assert [(c.action, c.before and c.before["name"]) for c in plan.sample] == [("update", "n2")]
    assert team.sync(rows, "three").apply(team.folder / "a.plan").counts.updated == 1
    with pytest.raises(StateChanged):
        team.sync(rows).apply(team.folder / "a.plan")


def test_reset_keeps_numbers_and_history(team: Team) -> None:
    team.sync(people(1, 2)).run()
    team.sync(people(1, 2)).reset()
    run = team.sync(people(1, 2), "two").run()
    assert (run.run, run.baseline, run.counts.created) == (2, "first", 2)
    with team.workspace() as workspace:
        assert [view.result.run for view in workspace.runs("people")] == [2, 1]


def test_changes_for_the_caller(team: Team) -> None:
    def taken(machine: str, rows: list[Row]) -> list[tuple[str, Any]]:
        found = rundiff.changes(
            rows, primary_key="id", name="c", home=team.machine(machine), database=team.url
        )
        return [(str(change.destination_action), change.primary_key["id"]) for change in found]

    assert sorted(taken("one", people(1, 2))) == [("create", 1), ("create", 2)]
    assert taken("two", people(2)) == [("delete", 1)]
    assert team.query("SELECT status, count(*) FROM sync_write_records GROUP BY 1") == [("written", 3)]
    left = rundiff.changes(people(3), primary_key="id", name="c", home=team.machine(), database=team.url)
    for _ in left:
        break
    del left
    assert sorted(taken("two", people(3))) == [("create", 3), ("delete", 2)]


# The schema


@pytest.fixture
def tables(team: Team) -> Team:
    PostgresqlDatabase(team.url).close()
    return team


def set_version(team: Team, version: str) -> None:
    with psycopg.connect(team.url) as connection:
        connection.execute("UPDATE rundiff_schema_version SET version_num = %s", [version])


@pytest.mark.parametrize("version", ["0003", "9999", "of_another_kind"])
def test_a_newer_schema_is_refused_and_left_alone(tables: Team, version: str) -> None:
    set_version(tables, version)
    for act in (lambda: tables.sync(people(1)).run(), lambda: Workspace.migrate(tables.workspace().storage)):
        with pytest.raises(StorageError, match=f"newer Rundiff .schema {version}.*upgrade Rundiff"):
            act()
    assert tables.query("SELECT version_num FROM rundiff_schema_version") == [(version,)]


def test_an_older_schema_asks_for_migrate(tables: Team) -> None:
    set_version(tables, "0000")
    with pytest.raises(StorageError, match="run `rundiff migrate`"):
        tables.workspace()


def test_migrate(team: Team, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["migrate", "--database", team.url]) == 0
    monkeypatch.setenv("RUNDIFF_DATABASE", team.url)
    assert main(["migrate"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith(f"made the tables, schema {SCHEMA_VERSION}.")
    assert out[1].endswith(f"the tables are up to date, schema {SCHEMA_VERSION}.")
    assert PASSWORD not in "".join(out)


def test_many_make_the_tables_at_once(team: Team) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            PostgresqlDatabase(f"{team.url}?schema=together").close()
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_alembic_is_imported_for_migrations_only(tables: Team) -> None:
    program = (
        "import sys; from rundiff.engine.workspace import Workspace; from rundiff.settings import Storage\n"
        "Workspace(Storage(home=sys.argv[1], database=sys.argv[2])).syncs()\n"
        "print({'alembic', 'sqlalchemy', 'duckdb'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tables.machine()), tables.url],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


def test_a_missing_driver_is_named(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDriver, match=r"pip install 'rundiff\[postgresql\]'"):
        team.workspace()


# Sentences


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ((PASSWORD, "wrong-secret"), StorageError, "can't be reached .*authentication failed"),
        (("/db_", "/nothing_"), StorageError, "can't be reached .*does not exist"),
        (("127.0.0.1", "host.invalid"), StorageError, "can't be reached"),
        (
            (":never-show-this@", ":50%secret@"),
            ConfigurationError,
            "can't be read; write it as postgresql://",
        ),
        (("?", "?lease_seconds=soon"), ConfigurationError, "lease_seconds"),
        (("?", "?lease_seconds=0"), ConfigurationError, "lease_seconds"),
        (("?", "?no_such_parameter=1"), ConfigurationError, "can't be read"),
        (("postgresql://", "oracle://"), ConfigurationError, "no database oracle://"),
    ],
)
def test_a_url_that_leads_nowhere(
    team: Team, change: tuple[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        Workspace(Storage(home=str(team.machine()), database=f"{team.url}?".replace(*change)))
    sentence = str(caught.value)
    assert "\n" not in sentence
    for secret in (PASSWORD, "wrong-secret", "secret@"):
        assert secret not in sentence


def test_a_role_that_may_not_make_tables(team: Team, postgresql_server: PostgresqlServer) -> None:
    with psycopg.connect(team.url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    url = team.url.replace("rundiff:", "reader:")
    with pytest.raises(StorageError, match=r"can't be made .*permission denied.*right to create tables"):
        PostgresqlDatabase(url)


# Leases


def hold(url: str, seconds: float = 60) -> tuple[PostgresqlDatabase, str, int]:
    database = PostgresqlDatabase(f"{url}?lease_seconds={seconds}")
    sync = database.find("people") or database.create(a_sync())
    return database, sync.sync_id, database.acquire(sync.sync_id, "worker 7", NOW)


def test_a_lease_ends_by_the_servers_clock(team: Team) -> None:
    database, sync_id, token = hold(team.url, 1)
    with contextlib.closing(database), contextlib.closing(PostgresqlDatabase(team.url)) as other:
        assert "worker 7 since" in (other.holder(sync_id) or "")
        for _ in range(3):
            time.sleep(0.5)
            database.heartbeat(sync_id, token, NOW)
        with pytest.raises(SyncBusy, match=r"worker 7 since .*ends at .*Z unless it is renewed"):
            other.acquire(sync_id, "other", NOW)
        time.sleep(1.1)
        assert other.holder(sync_id) is None
        # Nobody took it: its holder may go on.
        database.heartbeat(sync_id, token, NOW)
        time.sleep(1.1)
        assert other.acquire(sync_id, "other", NOW) == token + 1
        with pytest.raises(Fenced):
            database.heartbeat(sync_id, token, NOW)


def test_a_busy_sync_says_who_and_until_when(team: Team) -> None:
    team.sync(people(1)).run()
    database, _, _ = hold(team.url)
    with contextlib.closing(database):
        with pytest.raises(SyncBusy, match=r"sync people is under way \(worker 7 since .*; wait for it"):
            team.sync(people(1, 2), "two").run()
        with team.workspace("two") as workspace:
            assert "worker 7" in (workspace.syncs()[0].running or "")


def test_wait_takes_the_lease_when_it_is_given_back(team: Team) -> None:
    team.sync(people(1)).run()
    database, sync_id, token = hold(team.url)
    with contextlib.closing(database):
        timer = threading.Timer(0.7, lambda: database.release(sync_id, token))
        timer.start()
        assert team.sync(people(1, 2), "two", wait=True).run().counts.created == 1
        timer.join()


def test_a_long_run_keeps_its_lease(team: Team) -> None:
    """Three times as long as a lease lasts, with a source that is slow."""
    team.url += "?lease_seconds=1"

    def slowly() -> Iterator[Row]:
        for row in people(1, 2, 3):
            time.sleep(0.6)
            with pytest.raises(SyncBusy), team.workspace("two") as workspace:
                workspace.reset("people")
            yield row

    assert team.sync(slowly()).run().counts.created == 3
    with team.workspace() as workspace:
        assert workspace.syncs()[0].running is None


def test_a_long_transaction_keeps_its_lease(team: Team) -> None:
    """The write log of a large run is loaded in one: heartbeats don't wait for it."""
    with (
        contextlib.closing(PostgresqlDatabase(f"{team.url}?lease_seconds=1")) as database,
        contextlib.closing(PostgresqlDatabase(team.url)) as other,
    ):
        sync = database.create(a_sync())
        lease = Lease.take(team.folder / "lock", database, (sync.sync_id, sync.name), wait=False)

        def load(_: object) -> None:
            time.sleep(2.5)
            with pytest.raises(SyncBusy):
                other.acquire(sync.sync_id, "other", NOW)

        database.fenced_last(sync.sync_id, lease.token, load)
        lease.release()
        assert other.holder(sync.sync_id) is None


def test_a_stopped_transaction_keeps_nobody_waiting(team: Team) -> None:
    """A worker that stops in the middle of a transaction holds the sync's row no longer than a lease."""
    database, sync_id, token = hold(team.url, 1)
    with contextlib.closing(database), contextlib.closing(PostgresqlDatabase(team.url)) as other:

        def stop(_: object) -> None:
            time.sleep(1.2)
            # Waits for the row until the server ends the silent session.
            assert other.acquire(sync_id, "other", NOW) == token + 1

        with pytest.raises(Fenced):
            database.fenced(sync_id, token, stop)
