"""What tables promise of their modes: rows that are marked, appended, or kept with their time."""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from msgspec.structs import replace

from rundiff.destinations.contract import ChangeBatch, Destination, Position
from rundiff.errors import ConfigurationError, Fenced
from rundiff.testing.batches import change_batch
from rundiff.testing.harness import Harness, Trial

__all__ = ["Modes"]

_FIRST = datetime(2024, 5, 1, 12, 30, 0, 250_000, tzinfo=UTC)


class Modes(Trial):
    """Soft deletion, every version, and history, beside the mirror that all other promises are of."""

    @contextmanager
    def opened(self, harness: Harness, mode: str) -> Iterator[Destination]:
        """Open the target in a mode, skipping destinations that have none."""
        if harness.mode is None:
            pytest.skip("no modes")
        destination = harness.mode(mode)
        try:
            yield destination
        finally:
            destination.close()

    def play(self, destination: Destination) -> Position:
        """Deliver three runs: 1 and 2 appear; 1 changes and 2 goes; 2 comes back and 3 appears."""
        at = self.begin(destination, [{"id": 1, "v": "a"}])
        runs: list[list[tuple[str, list[dict[str, Any]]]]] = [
            [("insert", [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}])],
            [("delete", [{"id": 2, "v": "b"}]), ("update", [{"id": 1, "v": "A"}])],
            [("insert", [{"id": 2, "v": "B"}, {"id": 3, "v": "c"}])],
        ]
        for run, batches in enumerate(runs, 1):
            first = 1
            for action, rows in batches:
                at = destination.deliver(self.target, self.sealed(rows, action, run, first), at)
                first += len(rows)
            destination.finish(self.target, at)
        return at

    def sealed(self, rows: list[dict[str, Any]], action: str, run: int, first: int) -> ChangeBatch:
        """Make a batch of a run that was sealed an hour after the one before."""
        batch = change_batch(rows, action, run=run, first=first)
        return replace(batch, sealed_at=_FIRST + timedelta(hours=run))

    def when(self, run: int) -> datetime:
        """Give the time that a run was sealed."""
        return _FIRST + timedelta(hours=run)

    def moment(self, value: Any) -> datetime | None:
        """Read a time as the database gives it: as one in UTC, or as text."""
        if value is None:
            return None
        read = datetime.fromisoformat(value) if isinstance(value, str) else value
        return read if read.tzinfo is not None else read.replace(tzinfo=UTC)

    def test_soft_deleted_rows_stay(self, harness: Harness) -> None:
        """A deletion sets `deleted_at` to the seal of its run; a return clears it."""
        with self.opened(harness, "soft_delete") as destination:
            at = self.play(destination)
            gone = [{"id": 1, "v": None}, {"id": 9, "v": None}]
            destination.deliver(self.target, self.sealed(gone, "delete", 4, 1), at)
        found = {key: (row["v"], self.moment(row["deleted_at"])) for key, row in self.by_id(harness).items()}
        assert found == {1: ("A", self.when(4)), 2: ("B", None), 3: ("c", None)}

    def test_appended_changes_are_kept_once(self, harness: Harness) -> None:
        """Every change is a row with its action, run and sequence; a repeat is refused."""
        with self.opened(harness, "append") as destination:
            at = self.play(destination)
            again = self.sealed([{"id": 1, "v": "a"}], "insert", 1, 1)
            with pytest.raises(Fenced):
                destination.deliver(self.target, again, Position(run=1, sequence=0))
            destination.deliver(self.target, self.sealed([{"id": 3, "v": "c"}], "delete", 4, 1), at)
        assert harness.rows is not None
        names = ("_rundiff_run", "_rundiff_sequence", "_rundiff_action", "id", "v")
        assert sorted(tuple(row[name] for name in names) for row in harness.rows()) == [
            (1, 1, "insert", 1, "a"),
            (1, 2, "insert", 2, "b"),
            (2, 1, "delete", 2, "b"),
            (2, 2, "update", 1, "A"),
            (3, 1, "insert", 2, "B"),
            (3, 2, "insert", 3, "c"),
            (4, 1, "delete", 3, "c"),
        ]

    def test_history_tells_what_was_valid_when(self, harness: Harness) -> None:
        """A change ends the version before at the seal of its run, and begins another there."""
        with self.opened(harness, "history") as destination:
            self.play(destination)
        assert harness.rows is not None
        found = [
            (
                row["id"],
                row["v"],
                *(self.moment(row[name]) for name in ("valid_from", "valid_to")),
                row["is_current"],
            )
            for row in harness.rows()
        ]
        first, second, third = self.when(1), self.when(2), self.when(3)
        assert sorted(found, key=lambda row: row[0:1] + row[2:3]) == [
            (1, "a", first, second, False),
            (1, "A", second, None, True),
            (2, "b", first, second, False),
            (2, "B", third, None, True),
            (3, "c", third, None, True),
        ]

    @pytest.mark.parametrize("mode", ["soft_delete", "history"])
    def test_rows_of_others_stay(self, harness: Harness, mode: str) -> None:
        """What no change names is never touched, in any mode."""
        with self.opened(harness, mode) as destination:
            assert harness.sql is not None
            at = self.begin(destination, [{"id": 1, "v": "a"}])
            destination.close()
            harness.sql("INSERT INTO {table} (id, v) VALUES (100, 'mine')")
            destination.deliver(self.target, self.sealed([{"id": 1, "v": "a"}], "insert", 1, 1), at)
        found = self.by_id(harness)
        assert (sorted(found), found[100]["v"]) == ([1, 100], "mine")
        assert {found[100][name] for name in set(found[100]) - {"id", "v"}} == {None}

    @pytest.mark.parametrize(
        ("mode", "name"),
        [("soft_delete", "deleted_at"), ("append", "_rundiff_run"), ("history", "is_current")],
    )
    def test_fields_of_a_modes_own_columns_are_refused(self, harness: Harness, mode: str, name: str) -> None:
        """A source that has a field of that name is told before anything is read."""
        with self.opened(harness, mode) as destination:
            destination.check(self.target, {"id": pa.int64(), "v": pa.string()})
            with pytest.raises(ConfigurationError, match=name):
                destination.check(self.target, {"id": pa.int64(), name: pa.string()})

    def test_a_mode_is_part_of_the_identity(self, harness: Harness) -> None:
        """A sync that comes with another mode comes with another destination."""
        found = set()
        for mode in ("mirror", "soft_delete", "append", "history"):
            with self.opened(harness, mode) as destination:
                found.add(destination.identity)
        assert len(found) == 4
        assert harness.open().identity in found

    def test_one_row_a_key_can_not_keep_versions(self, harness: Harness) -> None:
        """A table with a unique key is refused where several rows of a key are to be kept."""
        with self.opened(harness, "mirror") as mirror:
            self.begin(mirror, [{"id": 1}])
        assert harness.sql is not None
        harness.sql("CREATE UNIQUE INDEX rundiff_only ON {table} (id)")
        with self.opened(harness, "history") as keeping, pytest.raises(ConfigurationError, match="unique"):
            keeping.check(self.target, {"id": pa.int64()})
