"""Preparations made of words, as settings make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rundiff.engine.forming import preparation_of
from rundiff.settings import Comparison, SyncSettings
from rundiff.signing.preparing import Preparation


def preparation(
    normalize: Mapping[str, Any] | None = None,
    *,
    exclude: tuple[str, ...] = (),
    include: tuple[str, ...] = (),
    key: tuple[str, ...] = ("id",),
) -> Preparation:
    """The preparation of a sync `people` with these settings."""
    comparison = Comparison(exclude=exclude, include=include, normalize=normalize or {})
    return preparation_of(SyncSettings(name="people", source=None, primary_key=key, comparison=comparison))


def prepared(
    batch: pa.RecordBatch,
    normalize: Mapping[str, Any] | None = None,
    *,
    exclude: tuple[str, ...] = (),
    include: tuple[str, ...] = (),
) -> pa.RecordBatch:
    """A batch in the form that is signed, all of its fields compared."""
    return preparation(normalize, exclude=exclude, include=include).applied(batch, batch.schema.names)


def prepared_values(array: pa.Array, words: Any) -> list[Any]:
    """The values of one field `value` after its normalisers."""
    batch = pa.RecordBatch.from_arrays([array], ["value"])
    made: list[Any] = prepared(batch, {"value": words}).column(0).to_pylist()
    return made
