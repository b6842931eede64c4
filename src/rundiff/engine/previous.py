"""What records held before: read back from the write log of the run that wrote them last."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rundiff.baseline.columns import conform, is_flat, unify_types
from rundiff.baseline.manifest import Rename
from rundiff.baseline.order import Words, argsort, as_signatures, distinct, prefixes, rows_equal, words
from rundiff.database.logs import WriteLog
from rundiff.engine.changeset import META
from rundiff.engine.log import CREATES, DELETES, UPDATES
from rundiff.engine.renaming import renamed, renamed_type
from rundiff.signing import SigningKey, sign, signer_name
from rundiff.signing.preparing import Preparation

__all__ = [
    "LogFolder",
    "LogKeys",
    "PreviousRecords",
    "changed_fields",
    "log_key_id",
    "logs_of",
    "named_fields",
    "rekeyed",
]


log = logging.getLogger("rundiff")

Rows = npt.NDArray[np.int64]

LogFolder = Callable[[int, pa.Array | None], Path]

_AS_IT_IS = Preparation()
_UNREADABLE = (OSError, pa.ArrowException, KeyError)


def logs_of(log: WriteLog, sync_id: str) -> LogFolder:
    """Find a sync's write logs, whole or in part."""

    def folder(run: int, signatures: pa.Array | None) -> Path:
        return log.folder(sync_id, run) if signatures is None else log.part(sync_id, run, signatures).folder

    return folder


class LogKeys(msgspec.Struct, frozen=True):
    """By which signatures records are asked for, and which logs may know others."""

    key: SigningKey | None
    since: int
    """The logs of runs before this one may be under other signing keys."""
    renames: tuple[Rename, ...] = ()
    """Fields whose former names are in the logs of runs before."""

    def other(self, folder: Path) -> bool:
        """Say whether a write log is under another key."""
        return log_key_id(folder) != (None if self.key is None else self.key.id)


class PreviousRecords:
    """Last known data by primary key signature.

    `log_folder(run, signatures)` gives a run's write log, or of it at least the records of these keys. Logs under
    another signing key than that of `keys` are signed anew as they are read.
    """

    def __init__(self, log_folder: LogFolder, keys: LogKeys, *, deletes: bool = False) -> None:
        self._log_folder = log_folder
        self._keys = keys
        # Only a deletion that is repeated has its data in the log of an earlier deletion.
        self._names = (UPDATES, CREATES, DELETES) if deletes else (UPDATES, CREATES)
        self._types: dict[int, pa.DataType] = {}
        self._damaged: set[Path] = set()
        self._parts: dict[int, Path] = {}
        """While some records are read ahead: what was fetched of each log."""
        self._cached: pa.Array | None = None
        """What was read ahead, as it was found."""
        self._cached_words: Words = np.empty((0, 4), dtype=">u8")
        """The signatures that were asked for, ascending, and where in `_cached` each one's record is, or -1."""
        self._cached_rows: Rows = np.empty(0, dtype=np.int64)

    def _paths(self, run: int) -> list[Path]:
        folder = self._parts.get(run) or self._log_folder(run, None)
        paths = (folder / name for name in self._names)
        return [path for path in paths if path not in self._damaged and path.exists()]

    def _damage(self, path: Path, error: Exception) -> None:
        # What records held before adorns a change; that it changed is known without it.
        log.warning("%s can't be read (%s): what records held before is not known", path, error)
        self._damaged.add(path)

    def data_type(self, runs: npt.NDArray[np.int64]) -> pa.DataType:
        """Give the type that holds the data of all these runs; the null type if none is known.

        After a `prefetch` it is the type of all that was fetched: going back to a narrower one could lose.
        """
        if self._cached is not None:
            return self._cached.type
        kind: pa.DataType = pa.null()
        for run in distinct(runs).tolist():
            if run not in self._types:
                self._types[run] = self._type_of(run)
            kind = unify_types(kind, self._types[run])
        return kind

    def _type_of(self, run: int) -> pa.DataType:
        known: pa.DataType = pa.null()
        for path in self._paths(run):
            try:
                known = unify_types(known, pq.read_schema(path).field("data").type)
            except _UNREADABLE as error:
                self._damage(path, error)
        return renamed_type(known, run, self._keys.renames)

    def prefetch(self, signatures: pa.Array, written_run: npt.NDArray[np.int64]) -> pa.DataType:
        """Read the data of these records now, in one pass over their logs; `fetch` then finds it here.

        Gives its type; the null type, and nothing is kept, if none is known.
        """
        self._cached = None
        runs = distinct(written_run).tolist()
        self._parts = {
            run: self._log_folder(run, signatures.take(pa.array(np.flatnonzero(written_run == run))))
            for run in runs
            # Of a log under another key nothing can be found by signature.
            if run >= self._keys.since
        }
        try:
            kind: pa.DataType = pa.null()
            for run in runs:
                kind = unify_types(kind, self._type_of(run))
            if pa.types.is_null(kind):
                return kind
            matrix = words(signatures)
            order = argsort(matrix)
            self._cached_words = matrix[order]
            self._cached, rows = self._read(signatures, written_run, kind)
            self._cached_rows = rows[order]
        finally:
            self._parts = {}
        return kind

    def fetch(self, signatures: pa.Array, written_run: npt.NDArray[np.int64], kind: pa.DataType) -> pa.Array:
        """Give the data of records, in the order asked; null where no log has it any more.

        Each log is read by row groups that can hold one of the signatures, so memory stays bounded
        by some row groups and the answer.
        """
        if self._cached is None:
            return _chosen(*self._read(signatures, written_run, kind))
        wanted = words(signatures)
        at = np.searchsorted(prefixes(self._cached_words), prefixes(wanted))
        at = np.minimum(at, len(self._cached_words) - 1)
        if not bool(rows_equal(self._cached_words[at], wanted).all()):
            # Not asked for before, or two that share 64 bits.
            return _chosen(*self._read(signatures, written_run, kind))
        return _chosen(self._cached, self._cached_rows[at])

    def _read(
        self, signatures: pa.Array, written_run: npt.NDArray[np.int64], kind: pa.DataType
    ) -> tuple[pa.Array, Rows]:
        """Give the data that the logs have, and where in it each record is that was asked for; -1: nowhere."""
        wanted = words(signatures)
        parts: list[pa.Array] = []
        places: list[npt.NDArray[np.int64]] = []
        for run in distinct(written_run).tolist():
            rows = np.flatnonzero(written_run == run)
            rows = rows[argsort(wanted[rows])]
            paths = self._paths(run)
            other = run < self._keys.since and bool(paths) and self._keys.other(paths[0].parent)
            for path in paths:
                try:
                    sought = as_signatures(wanted[rows])
                    matches = (
                        _matches_rekeyed(path, words(sought), self._keys.key)
                        if other
                        else _matches(path, sought, kind)
                    )
                except _UNREADABLE as error:
                    self._damage(path, error)
                    continue
                for found, data in matches:
                    parts.append(conform(renamed(data, run, self._keys.renames), kind))
                    places.append(rows[found])
        index = np.full(len(signatures), -1, dtype=np.int64)
        if not parts:
            return pa.nulls(0, kind), index
        index[np.concatenate(places)] = np.arange(sum(len(p) for p in places))
        return pa.concat_arrays(parts), index


def _chosen(data: pa.Array, rows: Rows) -> pa.Array:
    """Give the data at some rows, null for -1."""
    if len(rows) == len(data) and bool((rows == np.arange(len(rows))).all()):
        # As they stand: large texts are not copied for nothing.
        return data
    return data.take(pa.array(rows, mask=rows < 0))


def _matches(path: Path, wanted: pa.Array, kind: pa.DataType) -> list[tuple[Rows, pa.Array]]:
    """Find ascending signatures in a sorted log file: their indexes, and the data of each."""
    if signer_name() == "native" and all(map(_is_plain, kind)):
        from rundiff import _native

        # What the native core can't decode, Arrow may; and its word on a damaged file is what counts.
        with suppress(ValueError):
            found = _native.find_records(path, "data", wanted)
            return [(hits.to_numpy(), data) for hits, data in found]
    return _matches_by_arrow(path, words(wanted))


def log_key_id(folder: Path) -> str | None:
    """Tell under which signing key a write log was signed; None for none, or where that is not known."""
    try:
        return msgspec.json.decode((folder / META).read_bytes(), type=_Keyed).signing_key_id
    except (OSError, msgspec.DecodeError):
        return None


class _Keyed(msgspec.Struct, frozen=True):
    """The part of a log's findings that is asked for."""

    signing_key_id: str | None = None


def rekeyed(keys: pa.StructArray, key: SigningKey | None) -> pa.FixedSizeBinaryArray:
    """Sign primary keys of a write log under another signing key."""
    names = [field.name for field in keys.type]
    return sign(pa.RecordBatch.from_arrays(keys.flatten(), names), names, key).signatures


def _matches_rekeyed(path: Path, wanted: Words, key: SigningKey | None) -> list[tuple[Rows, pa.Array]]:
    """Find signatures under a key that the log was not signed under: all of its keys are signed anew."""
    found = []
    first_wanted = prefixes(wanted)
    with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            keys = words(
                rekeyed(file.read_row_group(group, columns=["primary_key"]).column(0).combine_chunks(), key)
            )
            order = argsort(keys)
            ordered = keys[order]
            at = np.minimum(np.searchsorted(prefixes(ordered), first_wanted), len(ordered) - 1)
            hit = rows_equal(ordered[at], wanted)
            if not hit.all():
                hit, at = _past_collisions(ordered, wanted, hit, at)
            if hit.any():
                data = file.read_row_group(group, columns=["data"]).column(0).combine_chunks()
                found.append((np.flatnonzero(hit), data.take(pa.array(order[at[hit]]))))
    return found


def _is_plain(field: pa.Field) -> bool:
    # A name with a NUL would be cut off there on its way out of the native core.
    return is_flat(field.type) and "\0" not in field.name


def _matches_by_arrow(path: Path, wanted: Words) -> list[tuple[Rows, pa.Array]]:
    first_wanted = prefixes(wanted)
    local = threading.local()

    def search(task: tuple[int, int, int]) -> tuple[Rows, pa.Array] | None:
        group, start, stop = task
        # A reader of its own for each thread: Arrow decodes a struct on one core.
        if not hasattr(local, "file"):
            local.file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        table = local.file.read_row_group(group, columns=["primary_key_signature", "data"], use_threads=False)
        keys = words(table.column(0))
        at = np.searchsorted(prefixes(keys), first_wanted[start:stop])
        at = np.minimum(at, len(keys) - 1)
        hit = rows_equal(keys[at], wanted[start:stop])
        if not hit.all():
            hit, at = _past_collisions(keys, wanted[start:stop], hit, at)
        if not hit.any():
            return None
        data = table.column(1).combine_chunks().take(pa.array(at[hit]))
        return np.flatnonzero(hit) + start, data

    tasks = []
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            statistics = file.metadata.row_group(group).column(0).statistics
            low = np.frombuffer(statistics.min[:8], dtype=">u8").astype(np.uint64)[0]
            high = np.frombuffer(statistics.max[:8], dtype=">u8").astype(np.uint64)[0]
            start = int(np.searchsorted(first_wanted, low, side="left"))
            stop = int(np.searchsorted(first_wanted, high, side="right"))
            if start < stop:
                tasks.append((group, start, stop))
    if len(tasks) < 2:
        found = [search(task) for task in tasks]
    else:
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="rundiff-previous") as pool:
            found = list(pool.map(search, tasks))
    return [item for item in found if item is not None]


def _past_collisions(
    keys: npt.NDArray[np.uint64],
    wanted: npt.NDArray[np.uint64],
    hit: npt.NDArray[np.bool_],
    at: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    # Signatures that share their first 64 bits stand side by side: step on while they do.
    for row in np.flatnonzero(~hit).tolist():
        place = int(at[row])
        while place < len(keys) and keys[place, 0] == wanted[row, 0]:
            if bool(rows_equal(keys[place : place + 1], wanted[row : row + 1])[0]):
                hit[row], at[row] = True, place
                break
            place += 1
    return hit, at


def changed_fields(
    before: pa.StructArray,
    after: pa.StructArray,
    compared: Sequence[str],
    preparation: Preparation = _AS_IT_IS,
) -> pa.Array:
    """Name the compared fields whose value differs, as a list of text; null where `before` is.

    Values are compared as they are signed, in the form that `preparation` gives them, so 1 equals 1.0 and null
    equals a missing field.
    """
    n = len(after)
    old = {f.name: before.field(i) for i, f in enumerate(before.type)}
    new = {f.name: after.field(i) for i, f in enumerate(after.type)}
    names = [name for name in compared if name in old or name in new]
    differs = np.zeros((n, len(names)), dtype=np.bool_)
    every = list(dict.fromkeys([*old, *new]))
    for column, name in enumerate(names):
        left, right = (
            preparation.column(name, side[name], every) if name in side else pa.nulls(n)
            for side in (old, new)
        )
        differs[:, column] = _differ(left, right, name)
    known = before.is_valid().to_numpy(zero_copy_only=False)
    return named_fields(names, differs, known)


def named_fields(
    names: Sequence[str], differs: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_]
) -> pa.Array:
    """Name the columns that are set in each row of `differs`, as a list of text; null where a row is not `known`."""
    differs[~known] = False
    _, columns = np.nonzero(differs)
    offsets = np.concatenate([[0], np.cumsum(differs.sum(axis=1))]).astype(np.int32)
    values = pa.array(names, pa.string()).take(pa.array(columns)) if names else pa.array([], pa.string())
    lists = pa.ListArray.from_arrays(pa.array(offsets), values)
    return pc.if_else(pa.array(known), lists, pa.scalar(None, lists.type))


def _differ(left: pa.Array, right: pa.Array, name: str) -> npt.NDArray[np.bool_]:
    kind = left.type
    if kind.equals(right.type) and is_flat(kind) and _comparable(kind):
        # Within one of these types, values are signed alike where they are equal, and any NaN like any other.
        unequal = pc.fill_null(pc.not_equal(left, right), False)
        if pa.types.is_floating(kind):
            unequal = pc.and_not(unequal, pc.fill_null(pc.and_(pc.is_nan(left), pc.is_nan(right)), False))
        lone = pc.xor(left.is_null(), right.is_null())
        return pc.or_(unequal, lone).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    signed = [sign(pa.RecordBatch.from_arrays([side], [name]), [name]).signatures for side in (left, right)]
    return ~rows_equal(words(signed[0]), words(signed[1]))


def _comparable(kind: pa.DataType) -> bool:
    """Say whether Arrow compares values of a flat type: not half floats, nor decimals of a negative scale."""
    if pa.types.is_decimal(kind):
        return kind.scale >= 0  # type: ignore[no-any-return]  # pyarrow is untyped
    return not pa.types.is_float16(kind)
