"""The conformance suite of databases: what `rundiff.database.contract` promises, as tests.

Write a subclass whose `open_database` fixture gives a function that opens one and the same database,
empty at first, as often as it is called, and pytest runs the suite on it:

    class TestMine(DatabaseSuite):
        @pytest.fixture
        def open_database(self, tmp_path):
            return lambda: MyDatabase(tmp_path)
"""
# ruff: noqa: S101, ARG005  # the module is made of assertions; each act takes what the others need, too

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from rundiff.database.contract import (
    Acknowledged,
    Database,
    Failure,
    Held,
    Sealed,
    StoredRun,
    StoredSync,
)
from rundiff.errors import Fenced
from rundiff.model import RunKind, RunStatus
from rundiff.testing.joined_runs import JoinedRunsSuite
from rundiff.testing.leases import LeasesSuite

__all__ = ["DatabaseSuite", "a_failure", "a_sync"]

NOW = datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
HELD = Held(run=1, what="deletions", count=3, reason="too many", digest="ab" * 32, manifest="manifest-1")
SEALED = Sealed(
    deletes=1,
    updates=2,
    creates=3,
    new_action="insert",
    manifest="manifest-2",
    generation=2,
    start_run=1,
    start_sequence=7,
    start_marker="512",
    held=HELD,
    complete=True,
    forget=("someone",),
)


def a_sync(name: str = "people", **values: Any) -> StoredSync:
    """Make a sync as it is before its first run."""
    fields: dict[str, Any] = {
        "sync_id": str(uuid.uuid4()),
        "name": name,
        "source": "people.csv",
        "primary_key": ("id", 'odd "name"'),
        "destination": '{"identity": "sqlite:///crm.db#people"}',
        "shared_table": False,
        "established": False,
        "created_at": NOW,
        "token": 0,
        "manifest": None,
        "generation": 0,
        "acknowledged": None,
        "held": None,
    }
    return StoredSync(**{**fields, **values})


def a_failure(run: int, sequence: int, **values: Any) -> Failure:
    """Make an open entry of the quarantine."""
    fields: dict[str, Any] = {
        "run": run,
        "sequence": sequence,
        "primary_key_signature": bytes([sequence % 256]) * 32,
        "destination_action": "insert",
        "primary_key": '{"id": 1}',
        "error": "refused",
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Failure(**{**fields, **values})


class DatabaseSuite(LeasesSuite, JoinedRunsSuite):
    """What every database has to do. Times are UTC."""

    @pytest.fixture
    def open_database(self) -> Callable[[], Database]:
        """Give a function that opens the database; to be overridden."""
        raise NotImplementedError("a subclass says which database to test")

    @pytest.fixture
    def database(self, open_database: Callable[[], Database]) -> Iterator[Database]:
        """Open the database for one test."""
        opened = open_database()
        yield opened
        opened.close()

    @pytest.fixture
    def sync(self, database: Database) -> StoredSync:
        """Store a sync."""
        return database.create(a_sync())

    # Syncs

    def test_a_sync_comes_back_as_it_was_stored(self, database: Database) -> None:
        """All fields survive, odd names included."""
        sync = a_sync("näme 'quoted' %s")
        assert database.create(sync) == sync
        assert database.find(sync.name) == database.get(sync.sync_id) == sync
        assert database.find("no such sync") is None

    def test_a_name_is_given_once(self, database: Database, sync: StoredSync) -> None:
        """A second sync of the name gives the first."""
        assert database.create(a_sync(source="other.csv")) == sync
        database.create(a_sync("animals"))
        assert [each.name for each in database.syncs()] == ["animals", "people"]

    def test_a_sync_is_described_anew(self, database: Database, sync: StoredSync) -> None:
        """Source, key, destination and sharing change, and nothing else."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        other = a_sync(
            sync_id=sync.sync_id,
            source="new.csv",
            primary_key=("a", "b"),
            destination="{}",
            shared_table=True,
            established=True,
            manifest="not taken over",
        )
        database.describe(other, token)
        found = database.get(sync.sync_id)
        assert found == msgspec.structs.replace(other, token=token, established=False, manifest=None)

    def test_the_changeable_state(self, database: Database, sync: StoredSync) -> None:
        """`set_sync` stores all of it, and takes it back."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        state = msgspec.structs.replace(
            sync,
            token=token,
            established=True,
            manifest="manifest-2",
            generation=2,
            acknowledged=Acknowledged(1, 2**40, "marker"),
            held=HELD,
        )
        database.set_sync(state, token)
        assert database.get(sync.sync_id) == state
        empty = msgspec.structs.replace(state, established=False, manifest=None, acknowledged=None, held=None)
        database.set_sync(empty, token)
        assert database.get(sync.sync_id) == empty

    def test_everything_is_durable(
        self, open_database: Callable[[], Database], database: Database, sync: StoredSync
    ) -> None:
        """Another connection sees what a method has done when it returns."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        number = database.begin_run(sync.sync_id, token, RunKind.SYNC, NOW)
        database.acknowledge(sync.sync_id, token, Acknowledged(number, 5))
        database.add_failures(sync.sync_id, token, [a_failure(number, 1)])
        other = open_database()
        try:
            assert other.get(sync.sync_id).acknowledged == Acknowledged(number, 5)
            assert other.run(sync.sync_id, number) == database.run(sync.sync_id, number)
            assert other.failures(sync.sync_id) == [a_failure(number, 1)]
            assert "me" in (other.holder(sync.sync_id) or "")
        finally:
            other.close()

    # Stale tokens

    @pytest.mark.parametrize(
        "act",
        [
            lambda d, s, r, t: d.describe(msgspec.structs.replace(s, source="stale"), t),
            lambda d, s, r, t: d.set_sync(msgspec.structs.replace(s, manifest="stale"), t),
            lambda d, s, r, t: d.heartbeat(s.sync_id, t, LATER),
            lambda d, s, r, t: d.begin_run(s.sync_id, t, RunKind.SYNC, LATER),
            lambda d, s, r, t: d.update_run(msgspec.structs.replace(r, token=t, status=RunStatus.FAILED)),
            lambda d, s, r, t: d.acknowledge(s.sync_id, t, Acknowledged(9, 9)),
            lambda d, s, r, t: d.add_failures(s.sync_id, t, [a_failure(r.run, 9)]),
            lambda d, s, r, t: d.drop_failures(s.sync_id, t, r.run, [1]),
            lambda d, s, r, t: d.settle_failures(s.sync_id, t, [(r.run, 1)], "discarded"),
            lambda d, s, r, t: d.commit(
                msgspec.structs.replace(r, token=t, status=RunStatus.COMMITTED),
                msgspec.structs.replace(s, manifest="stale"),
                [(r.run, 1)],
            ),
        ],
        ids=[
            *("describe", "set_sync", "heartbeat", "begin_run", "update_run"),
            *("acknowledge", "add_failures", "drop_failures", "settle_failures", "commit"),
        ],
    )
    def test_a_stale_token_changes_nothing(
        self,
        database: Database,
        sync: StoredSync,
        act: Callable[[Database, StoredSync, StoredRun, int], None],
    ) -> None:
        """Every method that takes a token refuses one that was succeeded."""
        stale = database.acquire(sync.sync_id, "Ada", NOW, over=True)
        run = self.begun(database, sync, stale)
        database.add_failures(sync.sync_id, stale, [a_failure(run.run, 1)])
        database.acquire(sync.sync_id, "Grace", NOW, over=True)
        before = {name: list(rows) for name, rows in database.tables().items()}
        with pytest.raises(Fenced):
            act(database, sync, run, stale)
        assert {name: list(rows) for name, rows in database.tables().items()} == before

    # Runs

    @staticmethod
    def begun(database: Database, sync: StoredSync, token: int) -> StoredRun:
        """Begin a run and give it."""
        found = database.run(sync.sync_id, database.begin_run(sync.sync_id, token, RunKind.SYNC, NOW))
        assert found is not None
        return found

    def test_runs_are_numbered_for_each_sync(self, database: Database, sync: StoredSync) -> None:
        """From 1, and never anew: not even after a reset."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        numbers = [database.begin_run(sync.sync_id, token, RunKind.SYNC, NOW) for _ in range(3)]
        database.set_sync(msgspec.structs.replace(sync, established=False), token)
        numbers.append(database.begin_run(sync.sync_id, token, RunKind.APPROVE, NOW))
        assert numbers == [1, 2, 3, 4]
        other = database.create(a_sync("animals"))
        token = database.acquire(other.sync_id, "me", NOW, over=True)
        assert database.begin_run(other.sync_id, token, RunKind.SYNC, NOW) == 1

    def test_a_run_begins_reading(self, database: Database, sync: StoredSync) -> None:
        """With its kind, its token and its time."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        run = self.begun(database, sync, token)
        assert (run.status, run.kind, run.token, run.started_at) == ("reading", "sync", token, NOW)
        assert (run.result, run.details, run.sealed, run.manifest, run.finished_at) == (
            {},
            {},
            None,
            None,
            None,
        )
        assert run.started_at.utcoffset() == timedelta(0)
        assert database.run(sync.sync_id, 2) is None

    def test_a_run_comes_back_as_it_was_stored(self, database: Database, sync: StoredSync) -> None:
        """With all that was sealed."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        run = msgspec.structs.replace(
            self.begun(database, sync, token),
            status=RunStatus.SEALED,
            finished_at=LATER,
            result={"created": 2**53, "error": None, "warnings": ["ünïcode"]},
            details={"samples": {"unreadable": ["line 7"]}},
            sealed=SEALED,
            manifest="manifest-2",
        )
        database.update_run(run)
        assert database.run(sync.sync_id, run.run) == run

    def test_runs_are_listed(self, database: Database, sync: StoredSync) -> None:
        """Newest first; unfinished ones oldest first."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        states = [RunStatus(state) for state in ("committed", "reading", "sealed", "delivering", "held")]
        states += [RunStatus.FAILED, RunStatus.DISCARDED]
        for state in states:
            database.update_run(msgspec.structs.replace(self.begun(database, sync, token), status=state))
        assert [run.run for run in database.runs(sync.sync_id)] == [7, 6, 5, 4, 3, 2, 1]
        assert [run.run for run in database.runs(sync.sync_id, 2)] == [7, 6]
        assert [run.run for run in database.unfinished(sync.sync_id)] == [2, 3, 4]
        other = database.create(a_sync("animals"))
        token = database.acquire(other.sync_id, "me", NOW, over=True)
        database.begin_run(other.sync_id, token, RunKind.SYNC, LATER)
        assert [run.sync_id for run in database.runs(limit=2)] == [other.sync_id, sync.sync_id]
        assert len(database.runs()) == 8

    def test_an_acknowledgement_moves_alone(self, database: Database, sync: StoredSync) -> None:
        """It is no commit: the manifest stays."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        database.acknowledge(sync.sync_id, token, Acknowledged(3, 10, "99"))
        assert database.get(sync.sync_id) == msgspec.structs.replace(
            sync, token=token, acknowledged=Acknowledged(3, 10, "99")
        )

    # Failures

    def test_failures_are_open_until_settled(self, database: Database, sync: StoredSync) -> None:
        """The same run and sequence again replaces the entry and counts the attempt."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        run = self.begun(database, sync, token)
        aside = a_failure(run.run, -1, primary_key_signature=None, destination_action=None, primary_key=None)
        database.add_failures(sync.sync_id, token, [a_failure(run.run, 2), aside])
        assert database.failures(sync.sync_id) == [aside, a_failure(run.run, 2)]
        again = a_failure(run.run, 2, error="refused again", outcome="unknown", updated_at=LATER)
        database.add_failures(sync.sync_id, token, [again])
        assert database.failures(sync.sync_id, run.run)[1] == msgspec.structs.replace(again, attempts=2)
        database.drop_failures(sync.sync_id, token, run.run, [2, 77])
        assert database.failures(sync.sync_id) == [aside]
        assert database.failures(sync.sync_id, run.run + 1) == []

    def test_failures_are_settled_one_by_one(self, database: Database, sync: StoredSync) -> None:
        """A discarded entry is no longer open, and keeps its error; the others stay."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        run = self.begun(database, sync, token)
        database.add_failures(sync.sync_id, token, [a_failure(run.run, 1), a_failure(run.run, 2)])
        database.settle_failures(sync.sync_id, token, [(run.run, 1), (run.run, 77)], "discarded")
        assert database.failures(sync.sync_id) == [a_failure(run.run, 2)]
        settled = database.failures(sync.sync_id, run.run)[0]
        assert (settled.state, settled.error, settled.attempts) == ("discarded", a_failure(1, 1).error, 1)

    # Committing

    def test_a_commit_changes_all_at_once(self, database: Database, sync: StoredSync) -> None:
        """The run, the manifest, the held set, the acknowledgement and the failures it settles."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        first = self.begun(database, sync, token)
        database.add_failures(sync.sync_id, token, [a_failure(first.run, 1), a_failure(first.run, 2)])
        run = msgspec.structs.replace(
            self.begun(database, sync, token),
            status=RunStatus.COMMITTED,
            finished_at=LATER,
            manifest="manifest-2",
        )
        state = msgspec.structs.replace(
            sync,
            token=token,
            established=True,
            manifest="manifest-2",
            generation=2,
            acknowledged=Acknowledged(run.run, 6),
            held=HELD,
        )
        database.commit(run, state, [(first.run, 1)])
        assert database.run(sync.sync_id, run.run) == run
        assert database.get(sync.sync_id) == state
        assert [failure.sequence for failure in database.failures(sync.sync_id)] == [2]
        settled = database.failures(sync.sync_id, first.run)[0]
        assert (settled.state, settled.updated_at) == ("superseded", LATER)

    def test_the_tables_hold_everything(self, database: Database, sync: StoredSync) -> None:
        """For the SQL views: rows of syncs, runs and failures."""
        token = database.acquire(sync.sync_id, "me", NOW, over=True)
        run = self.begun(database, sync, token)
        database.add_failures(sync.sync_id, token, [a_failure(run.run, 1)])
        tables = database.tables()
        assert [row["name"] for row in tables["syncs"]] == ["people"]
        assert [row["status"] for row in tables["runs"]] == ["reading"]
        assert [row["error"] for row in tables["failures"]] == ["refused"]
