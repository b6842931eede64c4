"""Several records of one key: which are the same, how they are ranked, and whom a user's function chooses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.columns import conform, unify_types
from rundiff.baseline.order import first_of_group, words
from rundiff.compare.conflicts import Strategy
from rundiff.engine.reading import Read
from rundiff.errors import PolicyViolation

__all__ = ["Implied", "chooser", "content_numbers", "contest_of", "ranks"]

LAST = 1 << 62
"""A rank after all others."""

Implied = tuple[npt.NDArray[np.int64], pa.ChunkedArray]
"""Of records that are as the baseline has them, and so were not kept: positions, and what they are ranked by."""


def contest_of(read: Read) -> Implied | None:
    """Put together what a reading kept of records that are as the baseline has them; None where that is nothing."""
    if not read.contest.positions:
        return None
    kind = pa.null()
    for values in read.contest.values:
        kind = unify_types(kind, values.type)
    return (
        np.concatenate(read.contest.positions),
        pa.chunked_array([conform(values, kind) for values in read.contest.values], kind),
    )


def content_numbers(rows: pa.RecordBatch, first: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Number the data signatures of keys with several candidates; equal numbers, equal data."""
    content = np.zeros(len(first), dtype=np.int64)
    repeated = ~first
    if not repeated.any():
        return content
    shared = repeated.copy()
    shared[:-1] |= repeated[1:]
    at = np.flatnonzero(shared)
    data = words(rows.column("data_signature"))[at]
    order = np.lexsort((data[:, 3], data[:, 2], data[:, 1], data[:, 0]))
    numbers = np.empty(len(at), dtype=np.int64)
    numbers[order] = np.cumsum(first_of_group(data[order]))
    content[at] = numbers
    return content


def ranks(
    strategy: Strategy, rows: pa.RecordBatch, contest: Implied | None
) -> dict[str, npt.NDArray[np.int64]]:
    """For `max:FIELD` and `min:FIELD`: rank the candidates and the implied ones together."""
    if strategy.field is None:
        return {}
    data = rows.column("data")
    index = data.type.get_field_index(strategy.field)
    if index < 0:
        raise PolicyViolation(
            f"on_conflict = {strategy.kind}:{strategy.field} names a field that the source does not have"
        )
    values = data.field(index)
    position = rows.column("position").to_numpy()
    at = np.empty(0, dtype=np.int64)
    if contest is not None:
        wanted = np.isin(contest[0], position[position >= 0])
        at = contest[0][wanted]
        others = contest[1].filter(pa.array(wanted)).combine_chunks()
        kind = unify_types(values.type, others.type)
        values = pa.concat_arrays([conform(values, kind), conform(others, kind)])
    if pa.types.is_null(values.type):
        # No candidate has a value: all rank alike.
        values = values.cast(pa.int64())
    try:
        ranked = pc.rank(values, sort_keys="ascending", tiebreaker="dense")
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise PolicyViolation(
            f"on_conflict = {strategy.kind}:{strategy.field} can't order values of type {values.type}; "
            "choose a field of numbers, text or times"
        ) from error
    rank = ranked.to_numpy().astype(np.int64)
    # A record without the field loses against any with it.
    rank[values.is_null().to_numpy(zero_copy_only=False)] = 0 if strategy.kind == "max" else LAST
    own, extra = rank[: len(position)], rank[len(position) :]
    worst = -1 if strategy.kind == "max" else LAST + 1
    implied_rank = np.full(len(position), worst, dtype=np.int64)
    if len(at):
        unique, inverse = np.unique(at, return_inverse=True)
        best = np.full(len(unique), worst, dtype=np.int64)
        (np.maximum if strategy.kind == "max" else np.minimum).at(best, inverse, extra)
        place = np.searchsorted(unique, position)
        place[place == len(unique)] = 0
        hit = unique[place] == position
        implied_rank[hit] = best[place[hit]]
    return {"rank": own, "implied_rank": implied_rank}


def chooser(
    function: Callable[[list[dict[str, Any]]], dict[str, Any]],
    rows: pa.RecordBatch,
    primary_key: Sequence[str],
) -> Callable[[int, int], int]:
    """Ask a user's function which of the records from one row to before another wins; gives its row."""
    data = rows.column("data")

    def choose(start: int, stop: int) -> int:
        records = data.slice(start, stop - start).to_pylist()
        given = [dict(record) for record in records]
        key = json.dumps({name: records[0][name] for name in primary_key}, default=str)
        try:
            answer = function(list(given))
        except Exception as error:
            error.add_note(
                f"It was raised by the function of on_conflict, given the records of the key {key}."
            )
            raise
        latest_first = range(len(records) - 1, -1, -1)
        # Itself before its like: to Python 1 is True, and Decimal("0.5") is 0.5, which sign otherwise.
        for index in latest_first:
            if answer is given[index] and given[index] == records[index]:
                return start + index
        if isinstance(answer, Mapping):
            for index in latest_first:
                if records[index] == dict(answer):
                    return start + index
        raise PolicyViolation(
            f"the function of on_conflict returned something else for the key {key} than one of the records that it "
            "was given; return one of them unchanged. Nothing was written"
        )

    return choose
