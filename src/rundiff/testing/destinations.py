"""The conformance suite of destinations: what `rundiff.destinations.contract` promises, as tests.

Write a subclass whose `harness` fixture makes an empty target, and pytest runs the suite on it:

    class TestMine(DestinationSuite):
        @pytest.fixture
        def harness(self, tmp_path):
            return Harness(open=lambda: MyDestination(tmp_path), changes=lambda: read(tmp_path))

What a destination does not claim by its capabilities is skipped, not asked for.
"""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pytest

from rundiff.destinations.contract import ChangeBatch, Destination, Position, Target
from rundiff.errors import Fenced, RecordsRefused
from rundiff.model import Action
from rundiff.testing.batches import change_batch, every_type

__all__ = ["DestinationSuite", "Harness"]


@dataclass(frozen=True, kw_only=True)
class Harness:
    """How the suite reaches one target, empty at first."""

    open: Callable[[], Destination]
    """Make a new instance on the same target."""
    rows: Callable[[], list[dict[str, Any]]] | None = None
    """For tables: read all rows."""
    changes: Callable[[], list[dict[str, Any]]] | None = None
    """For streams: read all changes in order, with `sequence`, `action`, `primary_key`, `data`."""
    sql: Callable[[str], None] | None = None
    """For tables: run standard SQL, in which `{table}` stands for the target."""


class DestinationSuite:
    """Every promise of the contract that the destination of `harness` makes."""

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

    # What all destinations promise.

    def test_new_action_is_insert_or_create(self, destination: Destination) -> None:
        """Tables insert, others create."""
        assert destination.capabilities.new_action in (Action.INSERT, Action.CREATE)

    def test_identity_is_stable(self, harness: Harness, destination: Destination) -> None:
        """A target has the same name before and after a delivery, for each instance."""
        before = destination.identity
        at = self.begin(destination, [{"id": 1}])
        destination.deliver(self.target, self.new(destination, [{"id": 1}]), at)
        assert harness.open().identity == before == destination.identity

    def test_check_leaves_nothing(self, harness: Harness, destination: Destination) -> None:
        """A check of a target that is not there yet leaves it not there."""
        destination.check(self.target, {"id": pa.int64()})
        destination.check(self.target, None)
        assert destination.position(self.target) is None
        assert not destination.strangers(self.target)
        keys = pa.record_batch({"id": pa.array([1, 2])})
        assert destination.existing_keys(self.target, keys).to_pylist() == [False, False]
        if harness.changes is not None:
            assert harness.changes() == []

    def test_prepare_and_claim_are_idempotent(self, harness: Harness, destination: Destination) -> None:
        """Both may be repeated, also by a new instance and after deliveries."""
        rows = [{"id": 1, "name": "Ada"}]
        at = self.begin(destination, rows)
        self.begin(destination, rows)
        at = destination.deliver(self.target, self.new(destination, rows), at)
        destination.finish(self.target, at)
        destination.finish(self.target, at)
        again = harness.open()
        again.prepare(self.target, pa.Table.from_pylist(rows).schema)
        again.claim(self.target, at)
        again.close()
        assert self.delivered(harness) == [1]

    def test_deliver_gives_the_position_reached(self, destination: Destination) -> None:
        """A batch ends at its last sequence; the next goes on from there, in a later run, too."""
        rows = [{"id": n} for n in range(5)]
        at = destination.deliver(self.target, self.new(destination, rows), self.begin(destination, rows))
        assert (at.run, at.sequence) == (1, 5)
        at = destination.deliver(self.target, change_batch(rows[:2], "update", first=6), at)
        assert (at.run, at.sequence) == (1, 7)
        destination.finish(self.target, at)
        at = destination.deliver(self.target, change_batch(rows[:1], "delete", run=2), at)
        assert (at.run, at.sequence) == (2, 1)
        destination.finish(self.target, at)

    def test_advance_writes_nothing(self, harness: Harness, destination: Destination) -> None:
        """A refused record is passed over, and delivery goes on behind it."""
        at = self.begin(destination, [{"id": 1}])
        at = destination.advance(self.target, at, Position(run=1, sequence=1))
        assert (at.run, at.sequence) == (1, 1)
        at = destination.deliver(self.target, self.new(destination, [{"id": 2}], first=2), at)
        destination.finish(self.target, at)
        assert self.delivered(harness) == [2]

    def test_empty_batch(self, harness: Harness, destination: Destination) -> None:
        """A batch without records is delivered by doing nothing."""
        at = self.begin(destination, [{"id": 1}])
        batch = self.new(destination, pa.table({"id": pa.array([], pa.int64())}))
        destination.finish(self.target, destination.deliver(self.target, batch, at))
        assert self.delivered(harness) == []

    def test_sliced_batches_deliver_their_part(self, harness: Harness, destination: Destination) -> None:
        """A slice is a batch of its own, so that a refused one can be halved."""
        rows = [{"id": n, "tags": [n], "text": None if n % 3 else f"t{n}"} for n in range(20)]
        at, batch = self.begin(destination, rows), self.new(destination, rows)
        for offset in range(0, 20, 7):
            at = destination.deliver(self.target, batch.slice(offset, min(7, 20 - offset)), at)
        destination.finish(self.target, at)
        assert (at.run, at.sequence) == (1, 20)
        assert self.delivered(harness) == list(range(20))

    def test_every_type_is_taken(self, harness: Harness, destination: Destination) -> None:
        """Every type that sources hand over is written, whole and null, and once more over itself."""
        table = every_type()
        at = self.begin(destination, table)
        at = destination.deliver(self.target, self.new(destination, table), at)
        at = destination.deliver(self.target, change_batch(table, "update", first=3), at)
        destination.finish(self.target, at)
        assert self.delivered(harness)[:2] == [1, 2]

    def test_ugly_names(self, harness: Harness, destination: Destination) -> None:
        """Names of any spelling are kept."""
        names = [
            "id",
            'say "hi"',
            "select",
            "a b",
            "ünï",
            "x.y",
            "{curly}",
            "per%cent",
            "'",
            "semi;--",
            "?",
            "1",
        ]
        row = {name: n for n, name in enumerate(names)}
        at = destination.deliver(self.target, self.new(destination, [row]), self.begin(destination, [row]))
        destination.finish(self.target, at)
        assert self.data(harness) == [row]

    def test_ugly_values(self, harness: Harness, destination: Destination) -> None:
        """Text of any content is kept."""
        texts = [
            "",
            "\0",
            "a\0b",
            "\U0001f600",
            "'",
            '"',
            "\\",
            "\n\r\t\x01\x7f",
            "null",
            "x" * 100_000,
            "\u2028",
            "007",
        ]
        rows = [{"id": n, "text": text} for n, text in enumerate(texts)]
        at = destination.deliver(self.target, self.new(destination, rows), self.begin(destination, rows))
        destination.finish(self.target, at)
        assert self.data(harness) == rows

    def test_composite_keys(self, harness: Harness, destination: Destination) -> None:
        """All fields of a key together say which record is meant."""
        target = replace(self.target, primary_key=("region", "id"))
        rows = [{"id": n, "region": region, "v": 0} for region in ("EU", "US") for n in (1, 2)]
        at, key = self.begin(destination, rows, target), ("region", "id")
        at = destination.deliver(target, self.new(destination, rows, key=key), at)
        changed = [{"id": 2, "region": "EU", "v": 1}]
        at = destination.deliver(target, change_batch(changed, "update", key=key, first=5), at)
        gone = [{"id": 1, "region": "US", "v": 0}]
        destination.finish(
            target, destination.deliver(target, change_batch(gone, "delete", key=key, first=6), at)
        )
        if harness.rows is None:
            assert [change["primary_key"] for change in self.read(harness)][-1] == {"region": "US", "id": 1}
        else:
            kept = {(row["region"], row["id"]): row["v"] for row in harness.rows()}
            assert kept == {("EU", 1): 0, ("EU", 2): 1, ("US", 2): 0}

    def test_close_twice(self, destination: Destination) -> None:
        """Closing is always allowed."""
        self.begin(destination, [{"id": 1}])
        destination.close()
        destination.close()

    # What transactional destinations promise.

    def test_position_moves_with_the_batch(self, harness: Harness, destination: Destination) -> None:
        """The watermark is there for every instance as soon as the batch is."""
        self.need(destination, "transactional")
        at = self.begin(destination, [{"id": 1}])
        assert destination.position(self.target) == self.start
        destination.deliver(self.target, self.new(destination, [{"id": 1}, {"id": 2}]), at)
        destination.close()
        assert harness.open().position(self.target) == Position(run=1, sequence=2)

    def test_a_batch_lands_once(self, harness: Harness, destination: Destination) -> None:
        """The same batch from the same position is refused the second time, and changes nothing."""
        self.need(destination, "transactional")
        rows = [{"id": 1, "v": 1}]
        at = self.begin(destination, rows)
        after = destination.deliver(self.target, self.new(destination, rows), at)
        destination.deliver(self.target, change_batch([{"id": 1, "v": 2}], "update", first=2), after)
        with pytest.raises(Fenced):
            destination.deliver(self.target, self.new(destination, rows), at)
        assert self.by_id(harness)[1]["v"] == 2
        assert destination.position(self.target) == Position(run=1, sequence=2)

    def test_a_stale_token_is_refused(self, harness: Harness, destination: Destination) -> None:
        """A worker that was succeeded can neither write nor claim."""
        self.need(destination, "transactional")
        at = self.begin(destination, [{"id": 1}])
        newer = harness.open()
        newer.claim(replace(self.target, token=6), at)
        newer.close()
        with pytest.raises(Fenced):
            destination.deliver(self.target, self.new(destination, [{"id": 1}]), at)
        with pytest.raises(Fenced):
            destination.advance(self.target, at, Position(run=1, sequence=1))
        with pytest.raises(Fenced):
            destination.claim(self.target, at)
        assert self.delivered(harness) == []

    def test_a_claim_never_goes_back(self, destination: Destination) -> None:
        """A claim from before the watermark is refused; under its own token it changes nothing."""
        self.need(destination, "transactional")
        at = self.begin(destination, [{"id": 1}])
        reached = destination.deliver(self.target, self.new(destination, [{"id": 1}]), at)
        destination.claim(self.target, at)
        assert destination.position(self.target) == reached
        with pytest.raises(Fenced):
            destination.claim(replace(self.target, token=6), at)
        destination.claim(replace(self.target, token=6), Position(run=2, sequence=0))
        assert destination.position(self.target) == Position(run=2, sequence=0)

    def test_two_syncs_on_one_table(self, harness: Harness, destination: Destination) -> None:
        """Each has its own watermark, sees the other's, and can be forgotten alone."""
        self.need(destination, "transactional")
        other = replace(self.target, sync_id="0b9c4ea8-1f3e-4c55-9d28-3a1d1c6d0002", sync="others", token=1)
        at = self.begin(destination, [{"id": 1}])
        destination.deliver(self.target, self.new(destination, [{"id": 1}]), at)
        destination.claim(other, self.start)
        destination.deliver(other, self.new(destination, [{"id": 2}, {"id": 3}]), self.start)
        assert destination.strangers(self.target) == [other.sync_id]
        assert destination.strangers(other) == [self.target.sync_id]
        assert destination.position(self.target) == Position(run=1, sequence=1)
        assert destination.position(other) == Position(run=1, sequence=2)
        destination.forget(self.target, [other.sync_id])
        assert list(destination.strangers(self.target)) == []
        assert destination.position(other) is None
        assert self.delivered(harness) == [1, 2, 3]

    def test_a_refused_batch_leaves_nothing(self, harness: Harness, destination: Destination) -> None:
        """Nothing of it is written; its halves find the culprit, which is passed over."""
        self.need(destination, "transactional")
        rows = self.refusal()
        at, batch = self.begin(destination, rows), self.new(destination, rows)
        with pytest.raises(RecordsRefused):
            destination.deliver(self.target, batch, at)
        assert self.delivered(harness) == []
        assert destination.position(self.target) == at
        refused: list[int] = []
        self.bisect(destination, batch, at, refused)
        assert refused == [6]
        assert self.delivered(harness) == [0, 1, 2, 3, 4, 6, 7]
        assert destination.position(self.target) == Position(run=1, sequence=8)

    def refusal(self) -> list[dict[str, Any]]:
        """Give eight rows with the ids 0 to 7, of which the target refuses the sixth: it has no key."""
        return [{"id": None if n == 5 else n, "v": n} for n in range(8)]

    def bisect(
        self, destination: Destination, batch: ChangeBatch, at: Position, refused: list[int]
    ) -> Position:
        """Deliver a batch, halving what is refused."""
        try:
            return destination.deliver(self.target, batch, at)
        except RecordsRefused:
            if batch.records.num_rows == 1:
                refused.append(batch.first_sequence)
                reached = Position(run=batch.run, sequence=batch.last_sequence)
                return destination.advance(self.target, at, reached)
        half = batch.records.num_rows // 2
        at = self.bisect(destination, batch.slice(0, half), at, refused)
        return self.bisect(destination, batch.slice(half, batch.records.num_rows - half), at, refused)

    # What tables promise.

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
        harness.sql("ALTER TABLE {table} ADD COLUMN note VARCHAR")
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

    # What destinations promise that show a run at once, or that have markers.

    def test_whole_runs_show_at_the_end(self, harness: Harness, destination: Destination) -> None:
        """Nothing is seen before `finish`; a broken delivery is repeated and seen once."""
        self.need(destination, "whole_runs")
        rows = [{"id": 1}]
        at = self.begin(destination, rows)
        destination.deliver(self.target, self.new(destination, rows), at)
        assert self.delivered(harness) == []
        again = harness.open()
        newer = replace(self.target, token=6)
        again.claim(newer, at)
        reached = again.deliver(newer, self.new(again, rows), at)
        reached = again.deliver(newer, self.new(again, [{"id": 2}], first=2), reached)
        again.finish(newer, reached)
        again.close()
        assert self.delivered(harness) == [1, 2]

    def test_markers_bring_a_stream_back(self, harness: Harness, destination: Destination) -> None:
        """A delivery that goes on from an acknowledged marker writes each change once."""
        at = self.begin(destination, [{"id": 1}])
        at = destination.deliver(self.target, self.new(destination, [{"id": 1}]), at)
        if at.marker is None:
            pytest.skip("no markers")
        destination.deliver(self.target, self.new(destination, [{"id": 2}], first=2), at)
        again = harness.open()
        again.claim(replace(self.target, token=6), at)
        at = again.deliver(self.target, self.new(again, [{"id": 2}, {"id": 3}], first=2), at)
        again.close()
        assert self.delivered(harness) == [1, 2, 3]

    # How the suite reads a target back.

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
