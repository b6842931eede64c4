"""One reading of a text source: records as they were written, brought to their pinned types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from rundiff.sources.batches import fitting_batch, record_batch
from rundiff.sources.contract import ReadBatch, ReadEnd, ReadRequest, Unreadable
from rundiff.sources.pins import canonical_pin
from rundiff.sources.spelling import Mask
from rundiff.sources.texttypes import TextGuess, fit_text, shortened

__all__ = ["NO_NEWLINE", "FieldKind", "Pass", "RawBatch", "TextFields", "TextReading"]

NO_NEWLINE = (
    "the file ends without a newline, where it ended with one before: it may be cut short. If it is whole, "
    "end it with a newline"
)


class RawBatch(msgspec.Struct, frozen=True):
    """Records as text, not typed yet."""

    columns: Mapping[str, Any]
    """By field: what the `FieldKind` of the format understands."""
    rows: int
    locate: Callable[[int], str]
    """The place of a row of this batch, for people."""
    unreadable: Sequence[Unreadable] = ()


class Pass(msgspec.Struct):
    """What one walk over the files found out beside its records."""

    incomplete: list[str] = msgspec.field(default_factory=list)
    newlines: list[bool] = msgspec.field(default_factory=list)
    """For each file that has lines: whether it ends with a newline."""
    newline_of: dict[str, bool] = msgspec.field(default_factory=dict)
    """The same by the file's name in messages."""
    bytes_done: int = 0
    position: Callable[[], int] | None = None
    """The place in the file that is being read."""

    @property
    def bytes_read(self) -> int:
        """Bytes of all files read so far."""
        return self.bytes_done + (self.position() if self.position else 0)


class Guess(Protocol):
    """Finds the pin that keeps every value of a field."""

    def add(self, column: Any) -> None:
        """Look at more values."""

    @property
    def pin(self) -> str | None:
        """The pin, or None while there is no value."""


class FieldKind(Protocol):
    """How the raw columns of a format are guessed and typed."""

    def guess(self) -> Guess:
        """Begin a guess."""

    def holds_value(self, column: Any) -> bool:
        """Say whether there is any value in a raw column."""

    def fit(self, column: Any, pin: str, explicit: bool) -> tuple[pa.Array, Mask | None]:
        """Type a raw column; the mask marks what does not fit."""

    def shown(self, column: Any, row: int) -> str:
        """Show one value in a message."""


class TextFields:
    """Fields that are text and nothing else, as in CSV: columns are Arrow strings."""

    def guess(self) -> Guess:
        """Begin a guess."""
        return TextGuess()

    def holds_value(self, column: pa.StringArray) -> bool:
        """Say whether there is any value in a raw column."""
        return bool(column.null_count < len(column))

    def fit(self, column: pa.StringArray, pin: str, explicit: bool) -> tuple[pa.Array, Mask | None]:  # noqa: ARG002
        """Type a raw column; the mask marks what does not fit."""
        return fit_text(column, pin)

    def shown(self, column: pa.StringArray, row: int) -> str:
        """Show one value in a message."""
        return shortened(column[row].as_py())


class TextReading:
    """One reading; see `contract.Reading`.

    The files are scanned for types as soon as a field turns up that has values and no pin: at the
    first run before the first batch is handed out, later only when there is something new.
    """

    def __init__(
        self,
        walk: Callable[[Pass], Iterator[RawBatch]],
        kind: FieldKind,
        request: ReadRequest,
        total_bytes: int | None,
    ) -> None:
        self._walk = walk
        self._kind = kind
        self._asked = {name: canonical_pin(pin) for name, pin in request.options.types.items()}
        self._pins = {**(request.pins or {})}
        self._pins.update({name: pin for name, pin in self._asked.items() if name in self._pins})
        self._pass = Pass()
        self.total_bytes = total_bytes

    @property
    def pins(self) -> Mapping[str, str]:
        """The pinned types of all fields ever seen with a value."""
        return dict(self._pins)

    @property
    def end(self) -> ReadEnd:
        """What is known at the end."""
        newlines = self._pass.newlines
        return ReadEnd(
            incomplete=tuple(self._pass.incomplete),
            ends_with_newline=all(newlines) if newlines else None,
            newlines=dict(self._pass.newline_of),
        )

    @property
    def bytes_read(self) -> int | None:
        """How much of `total_bytes` was read so far."""
        return self._pass.bytes_read

    def __iter__(self) -> Iterator[ReadBatch]:
        for raw in self._walk(self._pass):
            self._pin_new_fields(raw)
            yield self._typed(raw)

    def _pin_new_fields(self, raw: RawBatch) -> None:
        new = [name for name in raw.columns if name not in self._pins]
        for name in new:
            if name in self._asked:
                self._pins[name] = self._asked[name]
        if any(name not in self._pins and self._kind.holds_value(raw.columns[name]) for name in new):
            self._scan()

    def _scan(self) -> None:
        guesses: dict[str, Guess] = {}
        for raw in self._walk(Pass()):
            for name, column in raw.columns.items():
                if name not in self._pins and name not in self._asked:
                    guesses.setdefault(name, self._kind.guess()).add(column)
        self._pins.update({name: guess.pin for name, guess in guesses.items() if guess.pin is not None})

    def _typed(self, raw: RawBatch) -> ReadBatch:
        columns: dict[str, pa.Array] = {}
        misfits: dict[str, Mask] = {}
        for name, column in raw.columns.items():
            pin = self._pins.get(name)
            if pin is None:
                columns[name] = pa.nulls(raw.rows, pa.string())
                continue
            columns[name], misfit = self._kind.fit(column, pin, name in self._asked)
            if misfit is not None:
                misfits[name] = misfit

        def explain(row: int, name: str) -> Unreadable:
            value = self._kind.shown(raw.columns[name], row)
            return Unreadable(
                raw.locate(row),
                f"{value} does not fit the type of the field `{name}`, {self._pins[name]}",
                name,
            )

        return fitting_batch(record_batch(columns, raw.rows), misfits, raw.unreadable, explain)
