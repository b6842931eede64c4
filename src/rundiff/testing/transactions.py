"""What transactional destinations promise."""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from msgspec.structs import replace

from rundiff.destinations.contract import ChangeBatch, Destination, Position
from rundiff.errors import Fenced, RecordsRefused
from rundiff.testing.batches import change_batch
from rundiff.testing.harness import Harness, Trial

__all__ = ["Transactional"]


class Transactional(Trial):
    """Each change lands once, under one token."""

    def test_position_moves_with_the_batch(self, harness: Harness, destination: Destination) -> None:
        """The watermark is there for every instance as soon as the batch is."""
        self.need(destination, "transactional")
        at = self.begin(destination, [{"id": 1}])
        assert destination.position(self.target) == self.start
        destination.deliver(self.target, self.new(destination, [{"id": 1}, {"id": 2}]), at)
        destination.close()
        with closing(harness.open()) as again:
            assert again.position(self.target) == Position(run=1, sequence=2)

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
