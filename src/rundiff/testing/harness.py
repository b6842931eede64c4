"""How the suites reach a destination, and read back what it holds."""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from rundiff.destinations.contract import ChangeBatch, Destination, Position, Target
from rundiff.testing.batches import change_batch

__all__ = ["Harness", "Trial"]


class Harness(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """How the suite reaches one target, empty at first."""

    open: Callable[[], Destination]
    """Make a new instance on the same target."""
    rows: Callable[[], list[dict[str, Any]]] | None = None
    """For tables: read all rows."""
    changes: Callable[[], list[dict[str, Any]]] | None = None
    """For streams: read all changes in order, with `sequence`, `action`, `primary_key`, `data`."""
    sql: Callable[[str], None] | None = None
    """For tables: run standard SQL, in which `{table}` stands for the target."""
    mode: Callable[[str], Destination] | None = None
    """For tables: make a new instance on the same target, in a mode."""
    holds: Callable[[pa.Scalar], bool] = lambda _: True
    """Whether the target can hold a value; it has to refuse the record of one that it can't."""


class Trial:
    """What the parts of a suite share."""

    target = Target(
        sync_id="0b9c4ea8-1f3e-4c55-9d28-3a1d1c6d0001", sync="people", primary_key=("id",), token=5
    )
    start = Position(run=1, sequence=0)

    @pytest.fixture
    def harness(self) -> Harness:
        """Make an empty target; every subclass has its own."""
        raise NotImplementedError("a suite needs a fixture `harness`")

    @pytest.fixture
    def destination(self, harness: Harness) -> Any:
        """Open the target."""
        opened = harness.open()
        yield opened
        opened.close()

    def begin(self, destination: Destination, rows: Any, target: Target | None = None) -> Position:
        """Check, prepare and claim the target for what is to come."""
        target = target or self.target
        schema = rows.schema if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows)).schema
        destination.check(target, dict(zip(schema.names, schema.types, strict=True)))
        destination.prepare(target, schema)
        destination.claim(target, self.start)
        return self.start

    def new(self, destination: Destination, rows: Any, **place: Any) -> ChangeBatch:
        """Make a batch of the action that the destination uses for new records."""
        return change_batch(rows, destination.capabilities.new_action, **place)

    def by_id(self, harness: Harness) -> dict[Any, dict[str, Any]]:
        """Read a table's rows by their id, skipping destinations that are none."""
        if harness.rows is None:
            pytest.skip("no table")
        return {row["id"]: row for row in harness.rows()}

    def need(self, destination: Destination, capability: str) -> None:
        """Skip destinations that don't claim a capability."""
        if not getattr(destination.capabilities, capability):
            pytest.skip(f"not {capability}")

    def by_id_or_skip(self, harness: Harness) -> None:
        """Skip destinations that are no tables."""
        if harness.rows is None:
            pytest.skip("no table")

    def read(self, harness: Harness) -> list[dict[str, Any]]:
        """Read a stream's changes."""
        assert harness.changes is not None, "a harness needs `rows` or `changes`"
        return harness.changes()

    def delivered(self, harness: Harness) -> list[Any]:
        """Give the ids that were delivered: sorted for tables, in order for streams."""
        if harness.rows is not None:
            return sorted(row["id"] for row in harness.rows())
        return [change["primary_key"]["id"] for change in self.read(harness)]

    def data(self, harness: Harness) -> list[dict[str, Any]]:
        """Give the delivered records by id."""
        if harness.rows is not None:
            return sorted(harness.rows(), key=lambda row: row["id"])
        return [change["data"] for change in self.read(harness)]
