"""Rundiff through a pooler that gives each transaction another session (PgBouncer's `pool_mode = transaction`)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.servers.pgbouncer import Pooler
from tests.servers.postgresql import PASSWORD, PostgresqlServer

from rundiff import Run, Sync
from rundiff.cli import main
from rundiff.engine.workspace import Workspace
from rundiff.errors import SyncBusy
from rundiff.settings import Storage


def people(*ids: int, name: str = "a") -> list[dict[str, Any]]:
    return [{"id": each, "name": name, "seen": 1.5} for each in ids]


class Pooled:
    """Everything in one database, reached through the pooler only."""

    def __init__(self, folder: Path, direct: str, url: str) -> None:
        self.folder, self.direct, self.url = folder, direct, url

    def sync(self, rows: Any, machine: str, **options: Any) -> Sync:
        return Sync(
            rows,
            "id",
            name="people",
            destination=self.url,
            into="people",
            home=self.folder / machine,
            database=self.url,
            signatures=self.url,
            **options,
        )

    def run(self, rows: Any, machine: str, **options: Any) -> Run:
        return self.sync(rows, machine, **options).run()

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.direct) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def pooled(tmp_path: Path, postgresql_url: str, pooler: Pooler) -> Pooled:
    return Pooled(tmp_path, postgresql_url, pooler.through(postgresql_url))


def counts(run: Run) -> tuple[int, int, int]:
    return run.counts.created, run.counts.updated, run.counts.deleted


def test_state_and_destination(pooled: Pooled) -> None:
    """Runs on several machines, what they left, held deletions, and looking."""
    assert counts(pooled.run(people(*range(120)), "one")) == (120, 0, 0)
    changed = [*people(*range(2, 100)), *people(*range(100, 120), name="b"), *people(200)]
    assert counts(pooled.run(changed, "two")) == (1, 20, 2)
    assert counts(pooled.run(changed, "one")) == (0, 0, 0)
    held = pooled.run(people(*range(50, 100)), "three")
    assert (held.status, held.counts.deletes_held) == ("held", 69)
    storage = Storage(home=str(pooled.folder / "four"), database=pooled.url, signatures=pooled.url)
    with Workspace(storage) as workspace:
        view = workspace.syncs()[0]
        assert view.held is not None
        approved = workspace.approve("people", view.held.digest, pooled.url)
        assert approved.counts.deleted == 69
        [first, second, third] = workspace.history("people", {"id": 110})
        assert [e.change.action for e in (first, second, third)] == ["insert", "update", "delete"]
        assert second.change.changed_fields == ("name",)
        found = workspace.sql("SELECT status, count(*) AS n FROM sync_write_records GROUP BY ALL")
        assert found.to_pylist() == [{"status": "written", "n": 120 + 23 + 69}]
    assert pooled.ask("SELECT count(*), min(id), max(id) FROM people") == [(50, 50, 99)]


def test_one_run_at_a_time_and_a_lease_that_is_kept(pooled: Pooled) -> None:
    """The lease is a row, and no lock of a session."""
    began, ended = threading.Event(), threading.Event()

    def slowly() -> Any:
        yield from people(1, 2)
        began.set()
        assert ended.wait(30)

    def slow(rows: Any, machine: str) -> Sync:
        return Sync(
            rows,
            "id",
            name="slow",
            destination=f"sqlite:///{pooled.folder}/x.db",
            into="t",
            home=pooled.folder / machine,
            database=f"{pooled.url}?lease_seconds=1",
        )

    result: list[Run] = []
    sync = slow(slowly(), "one")
    thread = threading.Thread(target=lambda: result.append(sync.run()))
    thread.start()
    assert began.wait(30)
    threading.Event().wait(1.5)  # longer than a lease that nobody renews
    with pytest.raises(SyncBusy):
        slow(people(3), "two").run()
    ended.set()
    thread.join(30)
    assert result[0].status == "committed"


def test_a_source_in_one_snapshot(pooled: Pooled) -> None:
    with psycopg.connect(pooled.direct) as connection:
        connection.execute(
            "CREATE TABLE orders AS SELECT n AS id, now() AS at FROM generate_series(1, 5000) AS n"
        )
    to = [
        "--to",
        f"sqlite:///{pooled.folder}/copy.db",
        "--into",
        "orders",
        "--home",
        str(pooled.folder / "home"),
    ]
    for created in (5000, 0):
        assert main(["sync", pooled.url, "--table", "orders", "--key", "id", *to, "--quiet"]) == 0
        with Workspace(Storage(home=str(pooled.folder / "home"))) as workspace:
            assert workspace.runs()[0].result.counts.created == created


def test_doctor_tells(
    pooled: Pooled, capsys: pytest.CaptureFixture[str], postgresql_server: PostgresqlServer
) -> None:
    def look(url: str) -> str:
        assert main(["doctor", "--home", str(pooled.folder), "--database", url, "--signatures", url]) == 0
        told = capsys.readouterr().out
        assert PASSWORD not in told
        return " ".join(told.split())

    assert look(pooled.url).count("through a pooler") == 2
    assert "pooler" not in look(pooled.direct)
