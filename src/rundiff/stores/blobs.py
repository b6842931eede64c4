"""Cut a file into blobs, and put it together again, byte for byte; `blob_plans` says where every byte goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from rundiff.stores.blob_plans import BLOB_BYTES, DamagedBlobs, Plan, Rows, digest_of_file

__all__ = ["cut", "join"]


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
        with path.open("wb") as file:
            try:
                _write(plan, blobs, file)
            except (ValueError, IndexError, StopIteration) as error:
                raise DamagedBlobs("its blobs don't fit their plan") from error
    if path.stat().st_size != plan.size or digest_of_file(path) != plan.digest:
        raise DamagedBlobs("its blobs don't make up the file that was stored")


def _write(plan: Plan, blobs: Iterator[bytes], file: BinaryIO) -> None:
    file.truncate(plan.size)
    # Written and not mapped: a full disk is an error here, and would kill a process that fills a mapping.
    spans = [batch.span for batch in plan.batches]
    buffer = bytearray(max((end - start for start, end in spans), default=0))
    for batch, (start, end) in zip(plan.batches, spans, strict=True):
        _fill_rows(batch, blobs, memoryview(buffer), start)
        file.seek(start)
        file.write(memoryview(buffer)[: end - start])
    # After the batches: what lies between their columns is rest.
    ranges = iter(plan.rest)
    at, end = next(ranges, (0, 0))
    for blob in blobs:
        view = memoryview(blob)
        while view:
            file.seek(at)
            taken = view[: end - at]
            file.write(taken)
            at += len(taken)
            view = view[len(taken) :]
            if at == end:
                at, end = next(ranges, (plan.size, plan.size + len(view)))


def _fill_rows(batch: Rows, blobs: Iterator[bytes], target: memoryview, origin: int) -> None:
    """Put a batch's columns together; `origin` is the place in the file that `target` begins at."""
    lengths = {
        index: np.full(batch.rows, column.length, np.int64)
        for index, column in enumerate(batch.columns)
        if column.kind == "text"
    }
    codes = {
        index: np.empty(batch.rows, np.uint8)
        for index, column in enumerate(batch.columns)
        if column.kind == "coded"
    }
    written = dict.fromkeys(lengths, 0)
    for number in range(batch.blobs):
        low = number * batch.step
        count = min(batch.rows - low, batch.step)
        blob = memoryview(next(blobs))
        at = 0
        for index, column in enumerate(batch.columns):
            if column.kind == "fixed":
                size = count * column.width
                begin = column.start + low * column.width - origin
                target[begin : begin + size] = blob[at : at + size]
                at += size
            elif column.kind == "coded":
                codes[index][low : low + count] = np.frombuffer(blob[at : at + count], np.uint8)
                at += count
            elif column.kind == "text":
                size = count * column.length
                if column.lengths:
                    told = np.frombuffer(blob[at : at + count * column.lengths], f"<u{column.lengths}")
                    lengths[index][low : low + count] = told
                    at += count * column.lengths
                    size = int(told.sum(dtype=np.int64))
                begin = column.data + written[index] - origin
                target[begin : begin + size] = blob[at : at + size]
                written[index] += size
                at += size
    for index, column in enumerate(batch.columns):
        if column.kind == "text":
            values: npt.NDArray[Any] = np.empty(batch.rows + 1, f"<i{column.width}")
            values[0] = 0
            np.cumsum(lengths[index], out=values[1:])
            values += column.first
        elif column.kind == "coded":
            values = np.frombuffer(column.table, f"<u{column.width}")[codes[index]]
        elif column.kind == "same":
            values = np.full(batch.rows, np.frombuffer(column.table, f"<u{column.width}")[0])
        else:
            continue
        begin = column.start - origin
        target[begin : begin + values.nbytes] = _view(values)
