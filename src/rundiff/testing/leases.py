"""The part of the conformance suite of databases that is about leases, and about the clock that they go by."""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from rundiff.database.contract import Database, StoredSync
from rundiff.errors import Fenced, SyncBusy

__all__ = ["LeasesSuite"]

NOW = datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


class LeasesSuite:
    """What every database has to do for one run of a sync at a time."""

    def test_tokens_only_grow(self, open_database: Callable[[], Database], sync: StoredSync) -> None:
        """Also when many ask at once."""
        tokens: list[int] = []

        def ask() -> None:
            own = open_database()
            try:
                tokens.extend(own.acquire(sync.sync_id, "one of many", NOW, over=True) for _ in range(5))
            finally:
                own.close()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(tokens)) == 20
        assert min(tokens) > 0

    def test_a_held_lease_is_not_given_twice(
        self, open_database: Callable[[], Database], database: Database, sync: StoredSync
    ) -> None:
        """Who asks is told who holds it; given back, it is free."""
        first = database.acquire(sync.sync_id, "Ada", NOW)
        other = open_database()
        try:
            with pytest.raises(SyncBusy, match="Ada"):
                # Later by a clock that nobody asked.
                other.acquire(sync.sync_id, "Grace", NOW + timedelta(days=8))
            assert other.get(sync.sync_id).token == first
            database.release(sync.sync_id, first)
            assert other.acquire(sync.sync_id, "Grace", NOW) > first
            with pytest.raises(Fenced):
                database.heartbeat(sync.sync_id, first, LATER)
        finally:
            other.close()

    def test_the_clock_goes_on(self, database: Database) -> None:
        """In UTC."""
        first, second = database.now(), database.now()
        assert first <= second
        assert first.utcoffset() == timedelta(0)

    def test_the_place_is_named(self, database: Database) -> None:
        """For messages."""
        assert database.place

    def test_who_holds_the_lease(self, database: Database, sync: StoredSync) -> None:
        """The last one who took it; a lost lease can't be given back."""
        assert database.holder(sync.sync_id) is None
        first = database.acquire(sync.sync_id, "Ada", NOW, over=True)
        second = database.acquire(sync.sync_id, "Grace", NOW, over=True)
        assert second > first
        database.release(sync.sync_id, first)
        assert "Grace" in (database.holder(sync.sync_id) or "")
        database.heartbeat(sync.sync_id, second, LATER)
        database.release(sync.sync_id, second)
        database.release(sync.sync_id, second)
        assert database.holder(sync.sync_id) is None
