"""What the machine would allow: parts of the work alone, each measured in a process of its own.

Variants: `read` decodes the Parquet file and drops it; `sign-native` and `sign-python` sign rows in memory
over all fields; `sha256` hashes as many messages of the same encoded lengths and encodes nothing; `copy`
copies the same number of bytes in memory. All on all cores, but for signing in Python.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.peers.outcome import Job, Outcome, job, state

_ROWS = 1_000_000
_PYTHON_ROWS = 100_000
_LEAST_SECONDS = 1.0
"""How long passes over the rows are repeated; their median counts."""
_BATCH_ROWS = 65_536
_MOST_BYTES = 1 << 30
"""Rows held in memory, so that wide and long rows fit."""


def main() -> None:
    """Measure one limit and state its rate."""
    given = job()
    figures = _VARIANTS[given.variant](given)
    state(Outcome(seconds=figures["seconds"], figures=figures))


def _read(given: Job) -> dict[str, float]:
    started = time.perf_counter()
    rows = bytes_read = 0
    file = pq.ParquetFile(given.old, memory_map=True)
    for number in range(file.num_row_groups):
        table = file.read_row_group(number, use_threads=True)  # the fastest of four ways that were tried
        rows += table.num_rows
        bytes_read += table.nbytes
    return _rate(time.perf_counter() - started, rows, bytes_read)


def _sign_native(given: Job) -> dict[str, float]:
    from rundiff import _native

    batches = _rows(given, _ROWS)
    names = batches[0].schema.names
    _native.sign(batches[0], names)  # starts the threads

    def sign_all() -> None:
        for batch in batches:
            _native.sign(batch, names)

    return _rate(_median_seconds(sign_all), _count(batches), _encoded_bytes(batches))


def _sign_python(given: Job) -> dict[str, float]:
    from rundiff.signing.arrow import sign

    batches = _rows(given, _PYTHON_ROWS)
    names = batches[0].schema.names
    sign(batches[0], names)  # imports DuckDB where that pays

    def sign_all() -> None:
        for batch in batches:
            sign(batch, names)

    return _rate(_median_seconds(sign_all), _count(batches), _encoded_bytes(batches))


def _sha256(given: Job) -> dict[str, float]:
    """Hash messages of the lengths that signing would, grouped by their number of SHA-256 blocks.

    The fastest of the ways that the processor has is the limit.

    FIPS 180-4: a message of n bytes takes ceil((n + 9) / 64) blocks of 64 bytes.
    """
    from rundiff import _native

    batches = _rows(given, _ROWS)
    lengths = _encoded_lengths(batches)
    blocks = (lengths + 9 + 63) // 64
    groups = [lengths[blocks == number] for number in np.unique(blocks)]
    sizes = [(len(group), round(float(group.mean()))) for group in groups]
    passes: list[dict[str, float]] = []
    while sum(sum(each.values()) for each in passes) < 2 * _LEAST_SECONDS:
        taken: dict[str, float] = {}
        for messages, size in sizes:
            for way, seconds in _native._sha256_limit(messages, size):
                taken[way] = taken.get(way, 0.0) + seconds
        passes.append(taken)
    medians = {way: median(each[way] for each in passes) for way in passes[0]}
    figures = _rate(min(medians.values()), len(lengths), int(lengths.sum()))
    return figures | {f"{way}_seconds": seconds for way, seconds in medians.items()}


def _copy(given: Job) -> dict[str, float]:
    batches = _rows(given, _ROWS)
    size = _encoded_bytes(batches)
    threads = os.cpu_count() or 1
    parts = [np.ones(size // threads, np.uint8) for _ in range(threads)]
    targets = [np.zeros_like(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        seconds = _median_seconds(lambda: list(pool.map(np.copyto, targets, parts)))
    return _rate(seconds, _count(batches), size)


_VARIANTS: dict[str, Callable[[Job], dict[str, float]]] = {
    "read": _read,
    "sign-native": _sign_native,
    "sign-python": _sign_python,
    "sha256": _sha256,
    "copy": _copy,
}


def _median_seconds(work: Callable[[], object]) -> float:
    """Do the work several times, at least twice, and give the median of how long it took."""
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < _LEAST_SECONDS:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return median(taken)


def _rate(seconds: float, rows: int, size: int) -> dict[str, float]:
    return {"seconds": seconds, "rows": rows, "bytes": size, "rows_per_second": rows / seconds}


def _rows(given: Job, most: int) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in pq.ParquetFile(given.old).iter_batches(batch_size=_BATCH_ROWS):
        batches.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= most or size >= _MOST_BYTES:
            break
    return batches


def _count(batches: list[pa.RecordBatch]) -> int:
    return sum(batch.num_rows for batch in batches)


def _encoded_bytes(batches: list[pa.RecordBatch]) -> int:
    return int(_encoded_lengths(batches).sum())


def _encoded_lengths(batches: list[pa.RecordBatch]) -> npt.NDArray[np.int64]:
    from rundiff.signing.arrow import encode_records

    lengths = []
    for batch in batches:
        for start in range(0, batch.num_rows, 16_384):
            messages, _ = encode_records(batch.slice(start, 16_384))
            lengths.append(pc.binary_length(messages).to_numpy())
    return np.concatenate(lengths)


if __name__ == "__main__":
    main()
