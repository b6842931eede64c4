"""The destination of `rundiff.changes`: the caller takes the write records and delivers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from rundiff.destinations.contract import Capabilities, ChangeBatch, Position, Target
from rundiff.model import Action

__all__ = ["CALLER", "CallerDestination"]

CALLER = "caller"
"""The identity of a destination that is the caller."""


class CallerDestination:
    """Takes everything and keeps nothing."""

    capabilities = Capabilities(
        new_action=Action.CREATE, transactional=False, upserts=True, wants_previous=True
    )
    identity = CALLER

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Nothing can be wrong."""

    def position(self, target: Target) -> Position | None:  # noqa: ARG002 -- the contract's signature
        """There is no watermark."""
        return None

    def strangers(self, target: Target) -> Sequence[str]:  # noqa: ARG002 -- the contract's signature
        """No other sync can be here."""
        return ()

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:  # noqa: ARG002 -- the contract's signature
        """It can't know."""
        return pa.array([False] * keys.num_rows, pa.bool_())

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Nothing needs preparing."""

    def claim(self, target: Target, start: Position) -> None:
        """Nothing can be claimed."""

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:
        """Nothing is remembered."""

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:  # noqa: ARG002 -- the contract's signature
        """Count the batch as delivered."""
        return Position(run=batch.run, sequence=batch.last_sequence)

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:  # noqa: ARG002 -- the contract's signature
        """Count records as passed over."""
        return reached

    def finish(self, target: Target, reached: Position) -> None:
        """Everything is visible already."""

    def close(self) -> None:
        """Nothing is open."""
