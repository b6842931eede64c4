"""The columns of each shape of records, made from seeded random numbers, a chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["CHUNK_ROWS", "altered", "chunk"]

CHUNK_ROWS = {"narrow": 122_880, "middle": 122_880, "wide": 32_768, "text": 16_384}
"""Rows made at a time and kept in one row group: DuckDB's own row groups, fewer where rows are long."""

_ALTERED = {"narrow": "value", "middle": "score", "wide": "amount", "text": "score"}
"""The field that an update changes: a number that is never null."""
_WIDE_FIELDS = 198
_WIDE_FILLED = 0.15
_SEED = 20_261


def chunk(shape: str, first_id: int, rows: int) -> pa.Table:
    """Make `rows` rows with ids from `first_id` on; the same arguments always give the same rows."""
    random = np.random.default_rng([_SEED, list(_MAKERS).index(shape), first_id])
    ids = np.arange(first_id, first_id + rows, dtype=np.int64)
    return pa.table({"id": ids, **_MAKERS[shape](ids, random)})


def altered(shape: str, table: pa.Table, rows: npt.NDArray[np.bool_]) -> pa.Table:
    """Change one field in the marked rows of a chunk, and nothing else."""
    name = _ALTERED[shape]
    values = table[name].to_numpy()
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values + rows))


def _narrow(ids: npt.NDArray[np.int64], random: np.random.Generator) -> dict[str, object]:
    return {"name": _numbered("person ", ids), "value": np.round(random.random(len(ids)) * 1_000, 2)}


def _middle(ids: npt.NDArray[np.int64], random: np.random.Generator) -> dict[str, object]:
    rows = len(ids)
    cents = np.zeros((rows, 2), np.int64)  # the 128 bits of a decimal, low half first
    cents[:, 0] = random.integers(0, 10**7, rows)
    seen = random.integers(1_600_000_000, 1_700_000_000, rows) * 1_000_000 + random.integers(
        0, 1_000_000, rows
    )
    return {
        "account": random.integers(0, rows // 10 + 1_000, rows),
        "price": np.round(random.random(rows) * 1_000, 2),
        "score": random.random(rows),
        "amount": pa.Array.from_buffers(pa.decimal128(12, 2), rows, [None, pa.py_buffer(cents)]),
        "name": _picked("customer ", 50_000, rows, random),
        "city": _picked("City ", 1_000, rows, random),
        "country": _picked("c", 200, rows, random),
        "email": pc.binary_join_element_wise(_numbered("user", ids), "example.org", "@"),
        "born": pa.array(random.integers(0, 20_000, rows).astype(np.int32)).cast(pa.date32()),
        "seen": pa.array(seen).cast(pa.timestamp("us")),
        "active": pa.array(random.random(rows) < 0.5),
    }


def _wide(ids: npt.NDArray[np.int64], random: np.random.Generator) -> dict[str, object]:
    rows = len(ids)
    columns: dict[str, object] = {"amount": random.integers(0, 1_000_000, rows)}
    for number in range(_WIDE_FIELDS):
        null = random.random(rows) >= _WIDE_FILLED
        if number % 3 == 0:
            columns[f"count_{number}"] = pa.array(random.integers(0, 100_000, rows), mask=null)
        elif number % 3 == 1:
            columns[f"rate_{number}"] = pa.array(np.round(random.random(rows), 4), mask=null)
        else:
            picked = pa.array(random.integers(0, 1_000, rows), mask=null)
            columns[f"word_{number}"] = _pool("word ", 1_000).take(picked)
    return columns


def _text(ids: npt.NDArray[np.int64], random: np.random.Generator) -> dict[str, object]:
    bodies = _paragraphs().take(pa.array(random.integers(0, len(_paragraphs()), len(ids))))
    return {
        "title": _numbered("Article ", ids),
        "score": random.random(len(ids)),
        "body": pc.binary_join_element_wise(_numbered("Text ", ids), bodies, ": "),
    }


_MAKERS: dict[str, Callable[[npt.NDArray[np.int64], np.random.Generator], dict[str, object]]] = {
    "narrow": _narrow,
    "middle": _middle,
    "wide": _wide,
    "text": _text,
}


def _numbered(prefix: str, ids: npt.NDArray[np.int64]) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(ids).cast(pa.string()), "")


def _picked(prefix: str, size: int, rows: int, random: np.random.Generator) -> pa.Array:
    return _pool(prefix, size).take(pa.array(random.integers(0, size, rows)))


@cache
def _pool(prefix: str, size: int) -> pa.Array:
    return pa.array([f"{prefix}{number}" for number in range(size)])


@cache
def _paragraphs() -> pa.Array:
    """2,048 texts of 500 to 3,500 characters, of words that compress about as well as prose."""
    random = np.random.default_rng([_SEED, 99])
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(random.choice(letters[:18], size)) for size in random.integers(2, 11, 4_000)]
    texts = []
    for size in random.integers(500, 3_500, 2_048):
        picked = random.zipf(1.3, size // 3) % len(words)
        texts.append(" ".join(words[number] for number in picked)[:size])
    return pa.array(texts)
