"""A local folder with one file per run, each appearing whole.

A file is written under a hidden name, made durable, and renamed when the run's delivery ends. A
delivery that was broken off leaves a hidden file, which the next one removes and writes anew.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from rundiff.destinations.contract import Target
from rundiff.destinations.places import check_folder, sync_folder
from rundiff.destinations.wholeruns import RunFormat, WholeRuns
from rundiff.errors import ConfigurationError, DestinationError, Fenced
from rundiff.settings import DestinationOptions

__all__ = ["RunFolder", "open_csv", "open_parquet"]


def open_parquet(options: DestinationOptions) -> RunFolder:
    """Open the folder of Parquet files at `options.url`; nothing is touched yet."""
    from rundiff.destinations.parquet import PARQUET

    return _open(options, PARQUET)


def open_csv(options: DestinationOptions) -> RunFolder:
    """Open the folder of CSV files at `options.url`; nothing is touched yet."""
    from rundiff.destinations.delimited import csv_format

    return _open(options, csv_format(formula_safe=options.csv_formula_safe))


def _open(options: DestinationOptions, format: RunFormat) -> RunFolder:  # noqa: A002 -- the word that says it
    return RunFolder(Path(os.path.realpath(options.url or "")), format)


class RunFolder(WholeRuns):
    """A folder that gets `run-00000003.parquet`, or of another ending, for each run with changes."""

    def __init__(self, folder: Path, format: RunFormat) -> None:  # noqa: A002 -- as above
        super().__init__(format)
        self._folder = folder
        self._path: Path | None = None
        self._stream: BinaryIO | None = None

    @property
    def identity(self) -> str:
        """The absolute path."""
        return str(self._folder)

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse a path that is no folder or can't be written, and fields that no file takes."""
        self._format.check(fields or {})
        if self._folder.is_dir():
            check_folder(self._folder)
        elif self._folder.exists():
            raise ConfigurationError(
                f"{self._folder} is a file: a {self._format.title} destination is a folder, name another path."
            )
        else:
            check_folder(self._folder.parent)

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Create the folder."""
        super().prepare(target, schema)
        with self._failures():
            if not self._folder.exists():
                self._folder.mkdir()
                sync_folder(self._folder.parent)

    def _take_over(self, target: Target) -> None:
        for left in self._folder.glob(f".run-*.{target.sync_id}.*.part"):
            left.unlink(missing_ok=True)

    def _open(self, target: Target, run: int) -> BinaryIO:
        self._path = self._folder / f".run-{run:08d}.{target.sync_id}.{target.token}.part"
        self._stream = self._path.open("wb")
        return self._stream

    def _publish(self, target: Target, run: int) -> None:
        path, stream = self._path, self._stream
        assert path is not None  # noqa: S101 -- a file was opened before it is published
        assert stream is not None  # noqa: S101
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
        try:
            path.replace(self._final(target, run))
        except FileNotFoundError:
            raise Fenced(
                f'Another worker took "{target.sync}" over and removed what this one had written: it stops.'
            ) from None
        self._path = None
        sync_folder(self._folder)

    def _final(self, target: Target, run: int) -> Path:
        """Name the run's file; a name that another sync took gets the sync's id."""
        ending = self._format.ending
        path = self._folder / f"run-{run:08d}{ending}"
        if path.exists() and self._format.owner(path) != target.sync_id:
            return self._folder / f"run-{run:08d}-{target.sync_id}{ending}"
        return path

    def _drop(self) -> None:
        path, self._path = self._path, None
        stream, self._stream = self._stream, None
        with suppress(OSError):  # what could not be written is given up anyway
            if stream is not None:
                stream.close()
        with suppress(OSError):  # the next claim tries again
            if path is not None:
                path.unlink(missing_ok=True)

    def _translated(self, error: Exception) -> Exception | None:
        if not isinstance(error, OSError):
            return None
        return DestinationError(
            f"The folder {self._folder} can't be written: {error.strerror or error}. Mend it, then run again."
        )
