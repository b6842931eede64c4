"""What destinations have in common that keep no mark of a sync, such as APIs and functions."""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from rundiff.destinations.contract import Position, Target

__all__ = ["Markless"]


class Markless:
    """The database's acknowledgements stand, no key is looked up, and each change shows at once."""

    def position(self, target: Target) -> Position | None:
        """Give None: there is no watermark."""
        return None

    def strangers(self, target: Target) -> Sequence[str]:
        """Name nobody."""
        return ()

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:
        """Give all false: it is not asked."""
        return pa.array([False] * keys.num_rows, pa.bool_())

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Do nothing."""

    def claim(self, target: Target, start: Position) -> None:
        """Do nothing: nothing can be claimed."""

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:
        """Do nothing: there are no marks."""

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        """Send nothing."""
        return reached

    def finish(self, target: Target, reached: Position) -> None:
        """Do nothing."""
