"""A prefix in an object store with one object per run, each appearing whole and written once.

A run's content is gathered in a temporary file and sent when the run's delivery ends, under the
condition that no object of its name is there (RFC 9110 section 13.1.2: `If-None-Match: *`). Each object
says in its metadata whose run it is and what it brings, so that a delivery that was broken off after
the object was sent finds it and sends nothing.

Tokens of workers stand under `_rundiff/SYNC_ID/`, as empty objects: a worker that was succeeded finds a
higher one than its own before it sends anything, and stops.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from rundiff.destinations.buckets import Bucket, parse_bucket
from rundiff.destinations.contract import ChangeBatch, Position, Target
from rundiff.destinations.wholeruns import RunFormat, WholeRuns
from rundiff.errors import ConfigurationError, DestinationError, Fenced, MissingDriver
from rundiff.settings import DestinationOptions

__all__ = ["RunObjects", "open_objects"]

_OWNER = "rundiff_sync_id"
_CONTENT = "rundiff_content"
_ONE_REQUEST = 1 << 30
"""Bytes up to which an object is sent in one request. S3 takes 5 GB, Azure 5,000 MiB; what is larger goes
in parts, which no condition can be put on."""
_PART = 1 << 25
_PARTS_AT_ONCE = 4
_TRIES = 3


def open_objects(options: DestinationOptions) -> RunObjects:
    """Open the prefix at `options.url`; nothing is sent before a method is called."""
    bucket = parse_bucket(options.url or "")
    try:
        import obstore  # noqa: F401 -- asked for early, with its hint
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise MissingDriver(
            f"A destination {bucket.scheme}:// needs the package obstore: install it with "
            "`pip install 'rundiff[objects]'`."
        ) from error
    return RunObjects(bucket, _format_of(bucket, options))


def _format_of(bucket: Bucket, options: DestinationOptions) -> RunFormat:
    name = bucket.prefix.lower()
    if name.endswith(".parquet"):
        from rundiff.destinations.parquet import PARQUET

        return PARQUET
    if name.endswith(".csv"):
        from rundiff.destinations.delimited import csv_format

        return csv_format(formula_safe=options.csv_formula_safe)
    if name.endswith(".jsonl"):
        from rundiff.destinations.lines import JSON_LINES

        return JSON_LINES
    raise ConfigurationError(
        f"The prefix of {bucket.address} must say by its ending what is written: .parquet, .csv or .jsonl."
    )


class _Content:
    """What a run brings, as a digest: the same however its records were cut into batches."""

    def __init__(self) -> None:
        self._keys = hashlib.sha256()
        self._data = hashlib.sha256()
        self._actions: Counter[str] = Counter()

    def add(self, batch: ChangeBatch) -> None:
        self._keys.update(_bytes(batch.records.column("primary_key_signature")))
        self._data.update(_bytes(batch.records.column("data_signature")))
        self._actions[str(batch.action)] += batch.records.num_rows

    @property
    def digest(self) -> str:
        actions = ",".join(f"{action}={count}" for action, count in sorted(self._actions.items()))
        return hashlib.sha256(self._keys.digest() + self._data.digest() + actions.encode()).hexdigest()


def _bytes(signatures: pa.Array) -> memoryview:
    """Give the bytes of fixed_size_binary[32] values, null as zeros, without copying them."""
    whole = signatures.fill_null(bytes(32)) if signatures.null_count else signatures
    start = whole.offset * 32
    return memoryview(whole.buffers()[1])[start : start + len(whole) * 32]


class _Standing(msgspec.Struct, frozen=True):
    """What stands under the name that a run's object gets."""

    name: str
    content: str | None
    """The digest of the object that is there already, by this sync; None if there is none."""


class RunObjects(WholeRuns):
    """A prefix that gets `run-00000003.parquet`, or of another ending, for each run with changes."""

    def __init__(self, bucket: Bucket, format: RunFormat) -> None:  # noqa: A002 -- the word that says it
        super().__init__(format)
        self._bucket = bucket
        self._opened: Any = None
        self._stream: BinaryIO | None = None
        self._standing = _Standing("", None)
        self._content = _Content()

    @property
    def identity(self) -> str:
        """The URL without credentials."""
        return self._bucket.address

    @property
    def _store(self) -> Any:
        if self._opened is None:
            self._opened = self._bucket.open()
        return self._opened

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse fields that no object takes, and a bucket that is missing or can't be listed."""
        import obstore

        self._format.check(fields or {})
        with self._failures():
            next(iter(obstore.list(self._store, chunk_size=1)), None)

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Write the batch into a temporary file; `finish` sends it."""
        reached = super().deliver(target, batch, expected)
        self._content.add(batch)
        return reached

    def _take_over(self, target: Target) -> None:
        import obstore

        known = self._tokens(target)
        self._refuse_succeeded(target, known)
        if target.token not in known:
            obstore.put(self._store, _token_name(target, target.token), b"")
        lower = [_token_name(target, token) for token in known if token < target.token]
        if lower:
            obstore.delete(self._store, lower)

    def _tokens(self, target: Target) -> set[int]:
        import obstore

        place = f"_rundiff/{target.sync_id}"
        names = [
            each["path"].rpartition("/")[2] for page in obstore.list(self._store, place) for each in page
        ]
        return {int(name) for name in names if name.isdecimal()}

    def _refuse_succeeded(self, target: Target, tokens: set[int]) -> None:
        highest = max(tokens, default=0)
        if highest > target.token:
            raise Fenced(
                f'A newer worker delivers "{target.sync}" to {self.identity} (token {highest}, this one has '
                f"{target.token}): this one stops."
            )

    def _open(self, target: Target, run: int) -> BinaryIO:
        self._content = _Content()
        self._standing = self._look(target, run)
        # What is there already is compared by what it brings; the file itself is not needed again.
        there = self._standing.content is not None
        self._stream = open(os.devnull, "wb") if there else tempfile.TemporaryFile()  # noqa: PTH123, SIM115
        return self._stream

    def _look(self, target: Target, run: int) -> _Standing:
        """Find the run's name; one that another sync took gets the sync's id."""
        import obstore
        from obstore.exceptions import NotFoundError

        names = [
            f"run-{run:08d}{self._format.ending}",
            f"run-{run:08d}-{target.sync_id}{self._format.ending}",
        ]
        for name in names:
            try:
                metadata = obstore.get(self._store, name, options={"range": (0, 1)}).attributes
            except (NotFoundError, FileNotFoundError):
                return _Standing(name, None)
            if metadata.get(_OWNER) == target.sync_id:
                return _Standing(name, metadata.get(_CONTENT, ""))
        raise DestinationError(
            f"{self.identity} holds {names[0]} and {names[1]}, which this sync has not written: move them away, then "
            "run again."
        )

    def _publish(self, target: Target, run: int) -> None:
        """Send the run's object, unless it is there."""
        for _ in range(_TRIES):
            standing = self._standing
            if standing.content is not None:
                self._compare(target, run, standing)
                return
            self._refuse_succeeded(target, self._tokens(target))
            if self._send(target, standing.name):
                return
            # Another one sent an object of this name meanwhile; or this one did, and the answer was lost.
            self._standing = self._look(target, run)
        raise DestinationError(f"{self.identity} does not tell what it holds of run {run}: run again.")

    def _compare(self, target: Target, run: int, standing: _Standing) -> None:
        if standing.content != self._content.digest:
            raise DestinationError(
                f"{self.identity} holds {standing.name} of this sync already, with other changes than run {run} of "
                f'"{target.sync}" has now: was the home directory restored from an older copy? Move that object away, '
                "then run again."
            )

    def _send(self, target: Target, name: str) -> bool:
        """Send what was gathered; False if there is an object of this name."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        stream = self._stream
        assert stream is not None  # noqa: S101 -- a file was opened before it is published
        stream.flush()
        size = stream.tell()
        described = {
            "Content-Type": self._format.media_type,
            _OWNER: target.sync_id,
            _CONTENT: self._content.digest,
        }
        store = self._bucket.open(min(size, _ONE_REQUEST))
        if size > _ONE_REQUEST:
            stream.seek(0)
            obstore.put(
                store,
                name,
                stream,
                attributes=described,
                use_multipart=True,
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )
            return True
        with closing(mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)) as content:
            try:
                with memoryview(content) as view:
                    obstore.put(store, name, view, attributes=described, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        with suppress(OSError):  # what could not be written is given up anyway
            if stream is not None:
                stream.close()

    def _translated(self, error: Exception) -> Exception | None:
        found = self._bucket.failure(error)
        if found is not None or not isinstance(error, OSError):
            return found
        return DestinationError(
            f"The run's file can't be gathered in {tempfile.gettempdir()}: {error.strerror or error}. Mend it, or name "
            "another folder by TMPDIR, then run again."
        )


def _token_name(target: Target, token: int) -> str:
    return f"_rundiff/{target.sync_id}/{token:020d}"
