"""What destinations promise that tell what they hold."""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

from typing import cast

import pyarrow as pa

from rundiff.destinations.contract import Destination, Readable
from rundiff.testing.batches import change_batch, every_type
from rundiff.testing.harness import Harness, Trial
from rundiff.testing.nasty import NASTY

__all__ = ["Readables"]


class Readables(Trial):
    """Rows are told as text; a record is said to come back as it does come back."""

    def readable(self, destination: Destination) -> Readable:
        """Give the destination as one that can be read back, skipping others."""
        self.need(destination, "reads_back")
        return cast(Readable, destination)

    def test_texts_are_told_as_they_are(self, harness: Harness, destination: Destination) -> None:
        """Texts of any content come back byte by byte, null as null, fields that are not there not at all."""
        there = self.readable(destination)
        rows = [{"id": n, "value": text} for n, text in enumerate(NASTY) if harness.holds(pa.scalar(text))]
        rows.append({"id": len(NASTY), "value": None})
        at = self.begin(destination, rows)
        destination.deliver(self.target, self.new(destination, rows), at)
        expected = {str(row["id"]): row["value"] for row in rows}
        found = {}
        for batch in there.stored(self.target, ["id", "value", "nowhere"]):
            assert batch.schema.names == ["id", "value"]
            found.update(dict(zip(*batch.to_pydict().values(), strict=True)))
            # A record may be sent through while rows are read.
            told = there.echo(self.target, pa.Table.from_pylist(rows[:3]).to_batches()[0])
            assert told.column("value").to_pylist() == [row["value"] for row in rows[:3]]
        assert found == expected

    def test_records_come_back_as_they_are_said_to(self, harness: Harness, destination: Destination) -> None:
        """Values of every type that the target can hold are told alike when delivered and when only sent through."""
        there, whole = self.readable(destination), every_type()
        held = [name for name in whole.column_names if harness.holds(whole[name][0])]
        table = whole.select(held)
        at = self.begin(destination, table)
        at = destination.deliver(self.target, self.new(destination, table), at)
        destination.deliver(self.target, change_batch(table, "update", first=3), at)
        [records] = table.combine_chunks().to_batches()
        echo = there.echo(self.target, records).to_pylist()
        found = [row for batch in there.stored(self.target, held) for row in batch.to_pylist()]
        assert sorted(found, key=lambda row: row["id"]) == echo
