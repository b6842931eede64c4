"""Cut a file into blobs, and put it together again, byte for byte; `blob_plans` says where every byte goes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rundiff.stores.blob_plans import BLOB_BYTES, DamagedBlobs, Plan, Rows, digest_of_file

__all__ = ["cut", "join"]

_AT_ONCE = 64
"""Blobs whose columns are written at once: about a megabyte."""
_MOST_VIEWS = 512
"""In one call of the system, which takes 1,024 at least (POSIX, IOV_MAX: 16; Linux, macOS and the BSDs: 1,024)."""


def cut(plan: Plan, content: memoryview) -> Iterator[bytes]:
    """Yield the blobs of a mapped file in order."""
    if plan.inline is not None:
        return
    for batch in plan.batches:
        yield from _cut_rows(batch, content)
    yield from _chunks((content[start:end] for start, end in plan.rest), BLOB_BYTES)


def _cut_rows(batch: Rows, content: memoryview) -> Iterator[bytes]:
    # By blob and column, never by row.
    parts: list[Any] = []
    for column in batch.columns:
        whole = content[column.start : column.start + (batch.rows + 1) * column.width]
        if column.kind == "coded":
            table = np.frombuffer(column.table, f"<u{column.width}")
            numbers = np.frombuffer(whole, f"<u{column.width}", batch.rows)
            parts.append((column, _view(np.searchsorted(table, numbers).astype(np.uint8)), None))
        elif column.kind == "text":
            ends = np.frombuffer(whole, f"<i{column.width}", batch.rows + 1)
            lengths = None
            if column.lengths:
                lengths = _view(np.diff(ends).astype(f"<u{column.lengths}"))
            marks = (ends[:: batch.step] - column.first).tolist()
            parts.append((column, lengths, [*marks[: batch.blobs], int(ends[-1]) - column.first]))
        elif column.kind == "fixed":
            parts.append((column, whole, None))
    for number in range(batch.blobs):
        low = number * batch.step
        high = min(batch.rows, low + batch.step)
        pieces = []
        for column, view, marks in parts:
            width = {"coded": 1, "text": column.lengths, "fixed": column.width}[column.kind]
            if view is not None:
                pieces.append(view[low * width : high * width])
            if marks is not None:
                pieces.append(content[column.data + marks[number] : column.data + marks[number + 1]])
        yield b"".join(pieces)


def _view(numbers: npt.NDArray[Any]) -> memoryview:
    return memoryview(numbers.view(np.uint8))  # type: ignore[arg-type]  # mypy does not see that arrays are buffers


def _chunks(views: Iterable[memoryview], size: int) -> Iterator[bytes]:
    waiting = bytearray()
    for view in views:
        at = 0
        while at < len(view):
            taken = view[at : at + size - len(waiting)]
            waiting += taken
            at += len(taken)
            if len(waiting) == size:
                yield bytes(waiting)
                waiting.clear()
    if waiting:
        yield bytes(waiting)


def join(plan: Plan, blobs: Iterator[bytes], path: Path) -> None:
    """Write the file anew; raises `DamagedBlobs` if the result is not the file that was cut."""
    if plan.inline is not None:
        path.write_bytes(plan.inline)
    else:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            _write(plan, blobs, handle)
        except (ValueError, IndexError, StopIteration) as error:
            raise DamagedBlobs("its blobs don't fit their plan") from error
        finally:
            os.close(handle)
    if path.stat().st_size != plan.size or digest_of_file(path) != plan.digest:
        raise DamagedBlobs("its blobs don't make up the file that was stored")


def _write(plan: Plan, blobs: Iterator[bytes], handle: int) -> None:
    # Written and not mapped: a full disk is an error here, and would kill a process that fills a mapping.
    os.truncate(handle, plan.size)
    for batch in plan.batches:
        _write_rows(batch, blobs, handle)
    # After the batches: what lies between their columns is rest.
    ranges = iter(plan.rest)
    at, end = next(ranges, (0, 0))
    for blob in blobs:
        view = memoryview(blob)
        while view:
            taken = view[: end - at]
            if not taken:
                raise ValueError("more than the rest")
            _pour(handle, [taken], at)
            at += len(taken)
            view = view[len(taken) :]
            if at == end:
                at, end = next(ranges, (plan.size, plan.size))


def _write_rows(batch: Rows, blobs: Iterator[bytes], handle: int) -> None:
    """Write a batch's columns; what stands in the file as it does in blobs goes there without a copy."""
    columns = [(index, column) for index, column in enumerate(batch.columns) if column.kind != "same"]
    lengths = {index: np.full(batch.rows, c.length, np.int64) for index, c in columns if c.kind == "text"}
    codes = {index: np.empty(batch.rows, np.uint8) for index, c in columns if c.kind == "coded"}
    begins = {index: c.data if c.kind == "text" else c.start for index, c in columns if c.kind != "coded"}
    waiting: dict[int, list[memoryview]] = {index: [] for index in begins}
    for number in range(batch.blobs):
        low = number * batch.step
        count = min(batch.rows - low, batch.step)
        blob = memoryview(next(blobs))
        at = 0
        for index, column in columns:
            size = count * column.width
            if column.kind == "coded":
                codes[index][low : low + count] = np.frombuffer(blob[at : at + count], np.uint8)
                at += count
                continue
            if column.kind == "text":
                size = count * column.length
                if column.lengths:
                    told = np.frombuffer(blob[at : at + count * column.lengths], f"<u{column.lengths}")
                    lengths[index][low : low + count] = told
                    at += count * column.lengths
                    size = int(told.sum(dtype=np.int64))
            waiting[index].append(blob[at : at + size])
            at += size
        if at != len(blob):
            raise ValueError("a blob is too short or too long")
        if number % _AT_ONCE == _AT_ONCE - 1 or number == batch.blobs - 1:
            for index, views in waiting.items():
                begins[index] = _pour(handle, views, begins[index])
                views.clear()
    _write_made(batch, (lengths, codes), handle)


def _write_made(
    batch: Rows, told: tuple[dict[int, npt.NDArray[np.int64]], dict[int, npt.NDArray[np.uint8]]], handle: int
) -> None:
    """Write what blobs hold in another form than the file: offsets, coded and constant columns."""
    lengths, codes = told
    for index, column in enumerate(batch.columns):
        if column.kind == "text":
            values: npt.NDArray[Any] = np.empty(batch.rows + 1, f"<i{column.width}")
            values[0] = 0
            np.cumsum(lengths[index], out=values[1:])
            if int(values[-1]) != column.size:
                raise ValueError("texts of another size")
            values += column.first
        elif column.kind == "coded":
            values = np.frombuffer(column.table, f"<u{column.width}")[codes[index]]
        elif column.kind == "same":
            values = np.full(batch.rows, np.frombuffer(column.table, f"<u{column.width}")[0])
        else:
            continue
        _pour(handle, [_view(values)], column.start)


def _pour(handle: int, views: Sequence[memoryview], at: int) -> int:
    """Write views one after the other at a place in a file; gives the place after the last."""
    left = [view for view in views if view]
    while left:
        done = os.pwritev(handle, left[:_MOST_VIEWS], at)
        at += done
        whole = 0
        while whole < len(left) and done >= len(left[whole]):
            done -= len(left[whole])
            whole += 1
        left = left[whole:]
        if done:
            left[0] = left[0][done:]
    return at
