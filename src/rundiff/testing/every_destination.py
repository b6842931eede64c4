"""What all destinations promise."""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

import pyarrow as pa
import pytest
from msgspec.structs import replace

from rundiff.destinations.contract import Destination, Position
from rundiff.errors import ConfigurationError, DestinationError, RecordsRefused
from rundiff.model import Action
from rundiff.testing.batches import change_batch, every_type
from rundiff.testing.harness import Harness, Trial
from rundiff.testing.nasty import NASTY

__all__ = ["EveryDestination"]


class EveryDestination(Trial):
    """Promises of all destinations, and of those that show a run at once or have markers."""

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
        whole = every_type()
        refused = [name for name in whole.column_names if not harness.holds(whole[name][0])]
        table = whole.drop_columns(refused)
        at = self.begin(destination, whole)
        at = destination.deliver(self.target, self.new(destination, table), at)
        at = destination.deliver(self.target, change_batch(table, "update", first=3), at)
        destination.finish(self.target, at)
        assert self.delivered(harness)[:2] == [1, 2]
        for name in refused:
            with pytest.raises(RecordsRefused):
                destination.deliver(
                    self.target, change_batch(whole.select(["id", name]), "update", first=5), at
                )

    def test_nasty_texts(self, harness: Harness, destination: Destination) -> None:
        """Texts of any content are kept as they are, as keys and as values, or refused one by one."""
        target = replace(self.target, primary_key=("id", "text"))
        taken = [text for text in NASTY if harness.holds(pa.scalar(text))]
        refused = [text for text in NASTY if text not in taken]
        rows = [{"id": n, "text": text, "value": text} for n, text in enumerate(taken)]
        at, key = self.begin(destination, rows, target), ("id", "text")
        at = destination.deliver(target, self.new(destination, rows, key=key), at)
        for text in refused:
            bad = self.new(
                destination, [{"id": 0, "text": text, "value": ""}], first=at.sequence + 1, key=key
            )
            with pytest.raises(RecordsRefused):
                destination.deliver(target, bad, at)
        first = at.sequence + 1
        at = destination.deliver(target, change_batch(rows, "update", key=key, first=first), at)
        destination.finish(target, at)
        assert self.data(harness)[: len(rows)] == rows

    def test_long_texts(self, harness: Harness, destination: Destination) -> None:
        """Texts of any length are kept."""
        rows = [{"id": n, "text": text * 50_000} for n, text in enumerate(("x", "'\"\\", "\U0001f600"))]
        at = destination.deliver(self.target, self.new(destination, rows), self.begin(destination, rows))
        destination.finish(self.target, at)
        assert self.data(harness) == rows

    def test_nasty_names(self, harness: Harness, destination: Destination) -> None:
        """Names of any spelling are kept as they are, or refused before anything is read."""
        kept = ["id"]
        for name in NASTY:
            try:  # beside the others, some of which are the same name to some databases
                destination.check(self.target, dict.fromkeys([*kept, name], pa.int64()))
            except (ConfigurationError, DestinationError):
                continue
            kept.append(name)
        assert len(kept) > 0.6 * len(NASTY)
        row = {name: n for n, name in enumerate(kept)}
        at = destination.deliver(self.target, self.new(destination, [row]), self.begin(destination, [row]))
        destination.finish(self.target, at)
        assert self.data(harness) == [row]

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
