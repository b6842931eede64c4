"""Preparations made of words, as settings make them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rundiff.engine.forming import preparation_of
from rundiff.settings import Comparison, SyncSettings
from rundiff.signing import mixed
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


def told(array: pa.Array) -> list[Any]:
    """The values of an array, those of `rundiff.cbor` decoded, without the null members of mappings."""
    values = mixed.decode(array) if isinstance(array.type, mixed.MixedType) else array.to_pylist()
    return [_without_nulls(value) for value in values]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def prepared_values(array: pa.Array, words: Any) -> list[Any]:
    """The values of one field `value` after its normalisers."""
    batch = pa.RecordBatch.from_arrays([array], ["value"])
    made: list[Any] = prepared(batch, {"value": words}).column(0).to_pylist()
    return made
