"""The part of the conformance suite of databases that is about joined runs (`rundiff.database.joined`)."""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from rundiff.database.contract import Database, StoredRun, StoredSync
from rundiff.database.joined import CLOSED, OPEN, SEALING, JoinedRun, Roster, Share, Terms
from rundiff.errors import ConfigurationError, Fenced, SyncBusy
from rundiff.model import RunKind, RunStatus

__all__ = ["JoinedRunsSuite"]

NOW = datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=UTC)
TERMS = Terms(
    manifest="manifest-1", baseline="found", options={"exclude": "[]"}, idle_seconds=600, started_at=NOW
)


def _share(batch: str, name: str = "share-1") -> Share:
    return Share(batch=batch, object=name, digest="ab" * 16, records=3, worker="one", added_at=NOW)


class JoinedRunsSuite:
    """What every database has to do for runs of several workers."""

    @staticmethod
    def joined(database: Database, sync: StoredSync, **values: Any) -> JoinedRun:
        """Begin one, as a worker does: under a lease that it gives back."""
        token = database.acquire(sync.sync_id, "one", database.now(), over=True)
        fields: dict[str, Any] = {
            "sync_id": sync.sync_id,
            "name": "r",
            "token": token,
            "expires_at": database.now() + timedelta(seconds=600),
            "terms": TERMS,
        }
        joined = JoinedRun(**{**fields, **values})
        database.joined.begin(joined)
        database.release(sync.sync_id, token)
        return joined

    @staticmethod
    def _with(struct: Any, **values: Any) -> Any:
        return msgspec.structs.replace(struct, **values)

    def test_a_joined_run_is_found_as_it_was_begun(self, database: Database, sync: StoredSync) -> None:
        """With its roster, by all its changes."""
        joined = self.joined(database, sync)
        found = database.joined.find(sync.sync_id, "r")
        assert found is not None
        assert abs(found.expires_at - joined.expires_at) < timedelta(milliseconds=1)
        assert self._with(found, expires_at=joined.expires_at) == joined
        assert database.joined.find(sync.sync_id, "another") is None
        roster = Roster(batches=("a",), expected=1, workers={"one": True})
        assert database.joined.change(joined, lambda _: roster).roster == roster

    def test_a_batch_counts_once(self, database: Database, sync: StoredSync) -> None:
        """The first share is the one; batches are listed by code points."""
        joined = self.joined(database, sync)
        assert database.joined.add(joined, _share("b", "share-1"))
        assert not database.joined.add(joined, _share("b", "share-2"))
        for batch in ("a", "B", "é", "10", "9"):
            assert database.joined.add(joined, _share(batch, f"share-{batch}"))
        found = database.joined.shares(sync.sync_id, "r")
        assert [share.batch for share in found] == ["10", "9", "B", "a", "b", "é"]
        assert found[4] == _share("b", "share-1")
        assert database.joined.objects(sync.sync_id) == {share.object for share in found}
        database.joined.withdraw(joined, ["b", "none"])
        assert database.joined.add(joined, _share("b", "share-2"))

    def test_no_batch_beyond_those_announced(self, database: Database, sync: StoredSync) -> None:
        """Nothing is counted then."""
        joined = self.joined(database, sync)
        database.joined.change(joined, lambda _: Roster(batches=("a", "b"), expected=1))
        with pytest.raises(ConfigurationError, match="no batch 'c'"):
            database.joined.add(joined, _share("c"))
        assert database.joined.add(joined, _share("a"))
        with pytest.raises(ConfigurationError, match="1 expected batches"):
            database.joined.add(joined, _share("b"))

    def test_it_keeps_others_out(self, database: Database, sync: StoredSync) -> None:
        """And says so; nothing of a lease that was refused stays."""
        joined = self.joined(database, sync)
        for over in (False, True):
            with pytest.raises(SyncBusy, match="run r of several workers since 2026-01-31T23:59:59Z"):
                database.acquire(sync.sync_id, "another", database.now(), over=over)
        assert "run r of several workers" in str(database.joined.holder(sync.sync_id))
        assert database.joined.add(joined, _share("a"))

    def test_after_its_time_another_may_come(self, database: Database, sync: StoredSync) -> None:
        """From then on it takes nothing, can't be sealed, and holds no share."""
        joined = self.joined(database, sync, expires_at=database.now() - timedelta(seconds=1))
        assert database.joined.objects(sync.sync_id) == set()
        assert database.joined.holder(sync.sync_id) is None
        token = database.acquire(sync.sync_id, "another", database.now())
        database.release(sync.sync_id, token)
        with pytest.raises(Fenced):
            database.joined.add(joined, _share("a"))
        with pytest.raises(Fenced, match="taken the sync over since run r began"):
            database.acquire(sync.sync_id, "one", database.now(), joined="r")

    def test_who_seals_gets_the_token_and_nothing_more_comes_in(
        self, database: Database, sync: StoredSync
    ) -> None:
        """A second one that seals takes it over."""
        joined = self.joined(database, sync)
        database.joined.add(joined, _share("a"))
        for _ in range(2):
            token = database.acquire(sync.sync_id, "one", database.now(), joined="r")
            found = database.joined.find(sync.sync_id, "r")
            assert found is not None
            assert (found.state, found.token) == (SEALING, token)
            assert database.joined.objects(sync.sync_id) == {"share-1"}
            for late in (joined, found):
                with pytest.raises(Fenced):
                    database.joined.add(late, _share("b"))
            database.release(sync.sync_id, token)
        with pytest.raises(SyncBusy):
            database.acquire(sync.sync_id, "another", database.now())

    def test_the_commit_closes_it(self, database: Database, sync: StoredSync) -> None:
        """Its batches stay known, its shares may go; while it is delivered, anyone may finish it."""
        joined = self.joined(database, sync)
        database.joined.add(joined, _share("a"))
        token = database.acquire(sync.sync_id, "one", database.now(), joined="r")
        number = database.begin_run(sync.sync_id, token, RunKind.SYNC, NOW)
        database.joined.number(self._with(joined, token=token), number)
        run = database.run(sync.sync_id, number)
        assert run is not None
        delivering: StoredRun = self._with(run, token=token, status=RunStatus.DELIVERING)
        database.update_run(delivering)
        database.release(sync.sync_id, token)
        token = database.acquire(sync.sync_id, "another", database.now())
        database.commit(self._with(delivering, token=token, status=RunStatus.COMMITTED), sync, [])
        database.release(sync.sync_id, token)
        found = database.joined.find(sync.sync_id, "r")
        assert found is not None
        assert (found.state, found.run) == (CLOSED, number)
        assert [share.batch for share in database.joined.shares(sync.sync_id, "r")] == ["a"]
        assert database.joined.objects(sync.sync_id) == set()
        database.acquire(sync.sync_id, "another", database.now(), over=True)

    def test_what_was_given_up_may_begin_anew(self, database: Database, sync: StoredSync) -> None:
        """Without its batches."""
        joined = self.joined(database, sync)
        database.joined.add(joined, _share("a"))
        token = database.acquire(sync.sync_id, "one", database.now(), joined="r")
        with pytest.raises(Fenced):
            database.joined.remove(joined)
        database.joined.remove(self._with(joined, token=token))
        database.release(sync.sync_id, token)
        assert database.joined.find(sync.sync_id, "r") is None
        again = self.joined(database, sync)
        assert again.state == OPEN
        assert database.joined.shares(sync.sync_id, "r") == []
        assert database.joined.add(again, _share("a", "share-2"))
