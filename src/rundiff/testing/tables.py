"""What tables promise."""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from rundiff.destinations.contract import Destination
from rundiff.errors import DestinationError
from rundiff.testing.batches import change_batch
from rundiff.testing.harness import Harness, Trial

__all__ = ["Tables"]


class Tables(Trial):
    """Changes are upserts by key; what no change names stays."""

    def test_changes_are_upserts(self, harness: Harness, destination: Destination) -> None:
        """An update of a missing row inserts, an insert of a present one overwrites, a delete may miss."""
        self.by_id_or_skip(harness)
        rows = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]
        at = destination.deliver(self.target, self.new(destination, rows), self.begin(destination, rows))
        changed = [{"id": 2, "v": "B"}, {"id": 3, "v": "c"}]
        at = destination.deliver(self.target, change_batch(changed, "update", first=3), at)
        anew = [{"id": 1, "v": None}, {"id": 4, "v": "d"}]
        at = destination.deliver(self.target, self.new(destination, anew, first=5), at)
        gone = [{"id": 3, "v": "c"}, {"id": 9, "v": "?"}]
        destination.deliver(self.target, change_batch(gone, "delete", first=7), at)
        found = {key: row["v"] for key, row in self.by_id(harness).items()}
        assert found == {1: None, 2: "B", 4: "d"}

    def test_foreign_columns_and_rows_stay(self, harness: Harness, destination: Destination) -> None:
        """What no change names is never touched."""
        self.by_id_or_skip(harness)
        assert harness.sql is not None
        rows = [{"id": 1, "v": 1}, {"id": 2, "v": 2}, {"id": 3, "v": 3}]
        at = destination.deliver(self.target, self.new(destination, rows), self.begin(destination, rows))
        destination.close()
        harness.sql("ALTER TABLE {table} ADD COLUMN note VARCHAR(20)")
        harness.sql("UPDATE {table} SET note = 'kept'")
        harness.sql("INSERT INTO {table} (id, v, note) VALUES (100, 100, 'mine')")
        again = harness.open()
        at = again.deliver(self.target, change_batch([{"id": 1, "v": 10}], "update", first=4), at)
        at = again.deliver(
            self.target, self.new(again, [{"id": 2, "v": 20}, {"id": 7, "v": 70}], first=5), at
        )
        again.deliver(self.target, change_batch([{"id": 3, "v": 3}], "delete", first=7), at)
        again.close()
        found = {key: (row["v"], row["note"]) for key, row in self.by_id(harness).items()}
        assert found == {1: (10, "kept"), 2: (20, "kept"), 7: (70, None), 100: (100, "mine")}

    def test_new_fields_become_columns(self, harness: Harness, destination: Destination) -> None:
        """A field that was not there before gets a column; older rows have null in it."""
        self.by_id_or_skip(harness)
        rows = [{"id": 1, "v": 1}]
        at = destination.deliver(self.target, self.new(destination, rows), self.begin(destination, rows))
        more = [{"id": 2, "v": 2, "New Field": "x"}]
        self.begin(destination, more)
        destination.deliver(self.target, self.new(destination, more, first=2), at)
        found = {key: row["New Field"] for key, row in self.by_id(harness).items()}
        assert found == {1: None, 2: "x"}

    def test_fewer_fields_leave_columns_alone(self, harness: Harness, destination: Destination) -> None:
        """A field that a later batch lacks keeps its values."""
        self.by_id_or_skip(harness)
        rows = [{"id": 1, "v": 1, "w": 2}]
        at = destination.deliver(self.target, self.new(destination, rows), self.begin(destination, rows))
        destination.deliver(self.target, change_batch([{"id": 1, "v": 5}], "update", first=2), at)
        assert self.by_id(harness)[1] == {"id": 1, "v": 5, "w": 2}

    def test_columns_get_other_names(self, harness: Harness, destination: Destination) -> None:
        """Their values stay; a second time, or without such a column, nothing happens."""
        self.need(destination, "renames")
        there: Any = destination
        rows = [{"id": 1, "v": 1, "w": "a"}, {"id": 2, "v": 2, "w": "b"}]
        there.check_renames(self.target, {"v": "New Name"}, None)
        at = there.deliver(self.target, self.new(there, rows), self.begin(there, rows))
        for _ in range(2):
            there.check_renames(self.target, {"v": "New Name", "gone": "come"}, None)
            there.rename(self.target, {"v": "New Name", "gone": "come"})
        again = [{"id": 2, "New Name": 5, "w": "B"}]
        there.deliver(self.target, change_batch(again, "update", first=3), at)
        assert self.by_id(harness) == {
            1: {"id": 1, "New Name": 1, "w": "a"},
            2: {"id": 2, "New Name": 5, "w": "B"},
        }
        with pytest.raises(DestinationError, match="both a column w and a column New Name"):
            there.check_renames(self.target, {"w": "New Name"}, None)
        with pytest.raises(DestinationError, match="both a column w and a column New Name"):
            there.rename(self.target, {"w": "New Name"})

    def test_tables_of_keys_alone(self, harness: Harness, destination: Destination) -> None:
        """A source may have no fields but its key."""
        self.by_id_or_skip(harness)
        at = self.begin(destination, [{"id": 1}])
        at = destination.deliver(self.target, self.new(destination, [{"id": 1}, {"id": 2}]), at)
        at = destination.deliver(self.target, change_batch([{"id": 2}, {"id": 3}], "update", first=3), at)
        destination.deliver(self.target, change_batch([{"id": 1}], "delete", first=5), at)
        assert sorted(self.by_id(harness)) == [2, 3]

    def test_existing_keys(self, harness: Harness, destination: Destination) -> None:
        """The target knows which keys it holds, in the order that was asked."""
        self.by_id_or_skip(harness)
        at = self.begin(destination, [{"id": 1}])
        destination.deliver(self.target, self.new(destination, [{"id": 1}, {"id": 5}]), at)
        keys = pa.record_batch({"id": pa.array([5, 4, 1, 0])})
        assert destination.existing_keys(self.target, keys).to_pylist() == [True, False, True, False]
