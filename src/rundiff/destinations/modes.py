"""What a table keeps of a change: the four modes, with the columns that each adds.

`mirror` keeps the source's rows as they are; `soft_delete` keeps deleted ones with the time of their
deletion; `append` keeps every version as a row of its own; `history` keeps every version with the time
that it was valid (a slowly changing dimension of type 2: R. Kimball, The Data Warehouse Toolkit).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from rundiff.destinations.contract import ChangeBatch
from rundiff.destinations.tables import Dialect
from rundiff.errors import ConfigurationError

__all__ = [
    "ACTION",
    "CURRENT",
    "DELETED_AT",
    "MODE_FIELDS",
    "RUN",
    "SEQUENCE",
    "Mode",
    "check_clashes",
    "marks",
]

DELETED_AT = "deleted_at"
VALID_FROM, VALID_TO, CURRENT = "valid_from", "valid_to", "is_current"
ACTION, RUN, SEQUENCE = "_rundiff_action", "_rundiff_run", "_rundiff_sequence"
_MOMENT = pa.timestamp("us", "UTC")


class Mode(StrEnum):
    """What becomes of a row that is changed or deleted."""

    MIRROR = "mirror"
    SOFT_DELETE = "soft_delete"
    APPEND = "append"
    HISTORY = "history"

    @property
    def one_row(self) -> bool:
        """Whether a key has one row at most."""
        return self in (Mode.MIRROR, Mode.SOFT_DELETE)


MODE_FIELDS: Mapping[Mode, Mapping[str, pa.DataType]] = {
    Mode.MIRROR: {},
    Mode.SOFT_DELETE: {DELETED_AT: _MOMENT},
    Mode.APPEND: {ACTION: pa.string(), RUN: pa.int64(), SEQUENCE: pa.int64()},
    Mode.HISTORY: {VALID_FROM: _MOMENT, VALID_TO: _MOMENT, CURRENT: pa.bool_()},
}
"""The columns that a mode adds behind the source's fields."""


def check_clashes(dialect: Dialect, mode: Mode, fields: Mapping[str, pa.DataType]) -> None:
    """Refuse fields of the source that have the name of a mode's own column."""
    kept = {dialect.fold(name): name for name in MODE_FIELDS[mode]}
    for name in fields:
        own = kept.get(dialect.fold(name))
        if own is not None:
            raise ConfigurationError(
                f'The mode {mode} keeps the column "{own}" for itself, and the source has a field "{name}": '
                "rename the field, or choose another --mode."
            )


def marks(mode: Mode, batch: ChangeBatch, *, closing: bool = False) -> dict[str, pa.Array]:
    """Give a mode's own columns for the rows of a batch.

    With `closing`, they are those that end a row: its deletion, or the end of its validity. Times are
    those of the run's seal, in UTC.
    """
    count = int(batch.records.num_rows)
    if mode is Mode.APPEND:
        first = batch.first_sequence
        return {
            ACTION: _same(str(batch.action), pa.string(), count),
            RUN: _same(batch.run, pa.int64(), count),
            SEQUENCE: pa.array(np.arange(first, first + count, dtype=np.int64)),
        }
    moment = batch.sealed_at or datetime.now(UTC)
    if mode is Mode.SOFT_DELETE:
        return {DELETED_AT: _same(moment if closing else None, _MOMENT, count)}
    if mode is Mode.HISTORY and closing:
        return {VALID_TO: _same(moment, _MOMENT, count), CURRENT: _same(False, pa.bool_(), count)}
    if mode is Mode.HISTORY:
        return {
            VALID_FROM: _same(moment, _MOMENT, count),
            VALID_TO: _same(None, _MOMENT, count),
            CURRENT: _same(True, pa.bool_(), count),
        }
    return {}


def _same(value: Any, arrow_type: pa.DataType, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, arrow_type), count)
