"""Make the files that are compared, once, and keep them: `python -m benchmarks.data SHAPE ROWS RATE FOLDER`.

It runs as a process of its own: the process that measures must stay small (see `measure`).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.cases import ALL_AND_AS_MANY_NEW, Counts
from benchmarks.shapes import CHUNK_ROWS, altered, chunk

_BYTES_PER_ROW = {"narrow": 20, "middle": 60, "wide": 200, "text": 850}
"""What a row takes in a file, rounded up."""
_SEED = 20_262


def main() -> None:
    """Make both files and their truth, unless they are there."""
    shape, rows, rate, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    folder.mkdir(parents=True, exist_ok=True)
    old = folder / f"{shape}-{rows}.parquet"
    new = folder / f"{shape}-{rows}-{rate}.parquet"
    truth = folder / f"{shape}-{rows}-{rate}.json"
    if not (old.exists() and new.exists() and truth.exists()):
        needed = 2 * rows * _BYTES_PER_ROW[shape]
        free = shutil.disk_usage(folder).free
        if needed > free:
            sys.exit(
                f"{folder} has {free / 1e9:.0f} GB free and {shape} files of {rows:,} rows need "
                f"{needed / 1e9:.0f} GB; free some space or choose fewer rows."
            )
        if not old.exists():
            _write(old, _chunks(shape, rows))
        changes = _Changes(shape, rows, rate)
        _write(new, changes.chunks())
        partial = truth.with_suffix(".partial")
        partial.write_text(json.dumps({"new_rows": changes.new_rows, **asdict(changes.counts)}))
        partial.replace(truth)


class _Changes:
    """The second extract: rows in the order of the first, then the new ones; counts what it changes."""

    def __init__(self, shape: str, rows: int, rate: int) -> None:
        self.counts = Counts(0, 0, 0)
        self.new_rows = 0
        self._shape = shape
        self._rows = rows
        self._rate = rate

    def chunks(self) -> Iterator[pa.Table]:
        shape, created, updated, deleted = self._shape, 0, 0, 0
        for number, table in enumerate(_chunks(shape, self._rows)):
            leaving, changing = self._choose(number, table.num_rows)
            deleted += int(leaving.sum())
            updated += int(changing.sum())
            kept = altered(shape, table, changing).filter(pa.array(~leaving))
            self.new_rows += kept.num_rows
            yield kept
        new = self._rows if self._rate == ALL_AND_AS_MANY_NEW else deleted
        for table in _chunks(shape, new, first_id=self._rows):
            created += table.num_rows
            self.new_rows += table.num_rows
            yield table
        self.counts = Counts(created, updated, deleted)

    def _choose(self, number: int, rows: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Choose the rows of a chunk that are deleted and, of the others, those that are updated."""
        if self._rate == ALL_AND_AS_MANY_NEW:
            return np.zeros(rows, np.bool_), np.ones(rows, np.bool_)
        order = np.random.default_rng([_SEED, self._rate, number]).permutation(rows)
        leave = round(rows * self._rate / 200)
        change = min(round(rows * self._rate / 100), rows - leave)
        leaving, changing = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
        leaving[order[:leave]] = True
        changing[order[leave : leave + change]] = True
        return leaving, changing


def _chunks(shape: str, rows: int, first_id: int = 0) -> Iterator[pa.Table]:
    step = CHUNK_ROWS[shape]
    for start in range(0, rows, step):
        yield chunk(shape, first_id + start, min(step, rows - start))


def _write(path: Path, tables: Iterator[pa.Table]) -> None:
    """Write one row group a table; the file gets its name when it is whole."""
    partial = path.with_suffix(".partial")
    first = next(tables)
    with pq.ParquetWriter(partial, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
    partial.replace(path)


if __name__ == "__main__":
    main()
