"""Bring batches to the form in which they are signed; what is delivered and logged stays as the source gave it.

A field's value goes through these, in this order: its normaliser `json`, where that is the first; the paths that
are left out or alone taken; its other normalisers; the normalisers of paths inside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.types as pt

from rundiff.errors import ConfigurationError
from rundiff.signing import nested, normalisers
from rundiff.signing import normalised as scalar
from rundiff.signing.mixed import MixedType
from rundiff.signing.normalising import Function, Json, Quantise, Step, Text, Truncate, Unordered
from rundiff.signing.paths import ITEMS, Parts, Selection, roots
from rundiff.signing.rule import Form

__all__ = ["Preparation"]

Chain = tuple[Step, ...]
_DAY = 86_400 * 10**9
_WORDS = {
    "string": "text",
    "large_string": "text",
    "bool": "boolean",
    "int64": "integer",
    "uint64": "unsigned",
}


class _Part(msgspec.Struct, frozen=True):
    """What is done to one field."""

    name: str
    selection: Selection
    chains: tuple[tuple[Parts, Chain], ...]
    """Normalisers by the path inside of the field; the field's own, at (), first."""


class Preparation(msgspec.Struct, frozen=True, dict=True):
    """A form, ready to be applied. Safe to use from many threads."""

    form: Form = Form()
    chains: Mapping[str, Chain] = msgspec.field(default_factory=dict)
    """The normalisers by field or path, as `form` has them in words."""
    primary_key: tuple[str, ...] = ()
    """Fields that are always signed as they are."""
    owner: str = ""
    """Begins every message: `sync customers: `."""

    def applied(self, batch: pa.RecordBatch, fields: Collection[str]) -> pa.RecordBatch:
        """Give a batch with the same rows, its `fields` in the form that is signed.

        Raises `ConfigurationError` where a normaliser does not fit a field's type.
        """
        for part in self._parts(batch.schema.names):
            if part.name in fields:
                at = batch.schema.get_field_index(part.name)
                batch = batch.set_column(at, part.name, self._column(part, batch.column(at)))
        return batch

    def applied_where_it_fits(self, batch: pa.RecordBatch, fields: Collection[str]) -> pa.RecordBatch:
        """Do the same for records of an earlier run: what a normaliser does not fit stays as it is."""
        for name in fields:
            at = batch.schema.get_field_index(name)
            if at >= 0:
                column = self.column(name, batch.column(at), batch.schema.names)
                batch = batch.set_column(at, name, column)
        return batch

    def column(self, name: str, array: pa.Array, names: Sequence[str]) -> pa.Array:
        """Give one field's values in the form that is signed; `names` are all fields of the record.

        Values of a type that a normaliser does not fit stay as they are: an earlier run may have had them.
        """
        part = next((part for part in self._parts(names) if part.name == name), None)
        try:
            return array if part is None else self._column(part, array)
        except ConfigurationError:
            return array

    def touches(self, name: str) -> bool:
        """Say whether a field is signed otherwise than as it is."""
        return bool(self._parts((name,)))

    def astray(self, types: Mapping[str, pa.DataType]) -> list[str]:
        """Name the fields and paths of the form that lead nowhere among fields of these types."""
        texts = dict.fromkeys([*self.form.normalize, *self.form.exclude, *self.form.include])
        free = {name: kind for name, kind in types.items() if name not in self.primary_key}
        json = [path for path, chain in self.chains.items() if isinstance(chain[0], Json)]
        inside = tuple(f"{path}{mark}" for path in json for mark in (".", ITEMS))
        return [
            text
            for text in texts
            # What JSON text holds is in no type; and a field is there, even one of the key.
            if not any(rest == () for _, rest in roots(text, list(types), glob=True))
            and not text.startswith(inside)
            and not any(_exists(text, name, free) for name in free)
        ]

    @cached_property
    def _known(self) -> dict[tuple[str, ...], tuple[_Part, ...]]:
        return {}

    def _parts(self, names: Sequence[str]) -> tuple[_Part, ...]:
        """Say what is done to each field of a batch with these names, but those of the primary key."""
        if not self.form:
            return ()
        key = tuple(names)
        if key not in self._known:
            free = [name for name in key if name not in self.primary_key]
            self._known[key] = tuple(part for name in free if (part := self._part(name, free)) is not None)
        return self._known[key]

    def _part(self, name: str, names: Sequence[str]) -> _Part | None:
        def inside(paths: Sequence[str]) -> tuple[Parts, ...]:
            found = [rest for path in paths for root, rest in roots(path, names, glob=True) if root == name]
            return tuple(dict.fromkeys(found))

        exclude = tuple(rest for rest in inside(self.form.exclude) if rest)
        include = inside(self.form.include) or ((),)
        chains = [
            (rest, chain)
            for path, chain in self.chains.items()
            for root, rest in roots(path, names, glob=False)
            if root == name
        ]
        chains.sort(key=lambda entry: len(entry[0]))
        selection = Selection(exclude, None if () in include else include)
        return _Part(name, selection, tuple(chains)) if chains or not selection.is_whole else None

    def _column(self, part: _Part, array: pa.Array) -> pa.Array:
        before = [(path, chain[:1]) for path, chain in part.chains if isinstance(chain[0], Json)]
        after = [(path, chain[1:] if isinstance(chain[0], Json) else chain) for path, chain in part.chains]
        array = self._at_paths(array, part, before)
        loose = isinstance(array.type, MixedType)
        steps = [step for _, chain in after for step in chain]
        if loose and all(map(_alike, steps)) and (steps or not part.selection.is_whole):
            plain = nested.typed(array)
            array = array if plain is None else plain
        array = nested.selected(array, part.selection)
        return self._at_paths(array, part, after, loose=loose)

    def _at_paths(
        self, array: pa.Array, part: _Part, chains: Sequence[tuple[Parts, Chain]], *, loose: bool = False
    ) -> pa.Array:
        for path, chain in chains:
            if chain:
                array = self._at_path(array, (part.name, path), chain, loose=loose)
        return array

    def _at_path(self, array: pa.Array, where: tuple[str, Parts], chain: Chain, *, loose: bool) -> pa.Array:
        """Apply a chain to what is at a path; `loose` ones leave alone what they do not fit."""
        name, path = where
        shown = ".".join([name, *path]).replace(f".{ITEMS}", ITEMS)

        def function(values: pa.Array) -> pa.Array:
            for step in chain:
                values = nested.plain(values)
                if not loose or isinstance(step, Function) or _fits(values.type, step):
                    values = self._step(values, step, shown)
            return values

        if isinstance(array.type, MixedType) and path:
            return nested.by_value(
                array, lambda value: scalar.at_path(value, path, partial(_by_value, chain=chain))
            )
        try:
            return nested.at_path(array, path, function)
        except KeyError:
            # The path leads nowhere in this batch: rows of mappings may lack it.
            return array

    def _step(self, array: pa.Array, step: Step, shown: str) -> pa.Array:
        if pt.is_null(array.type) and not isinstance(step, Function):
            return array
        if isinstance(step, Function):
            return self._called(array, step, shown)
        if not _fits(array.type, step):
            word = _WORDS.get(str(array.type), str(array.type))
            hint = ""
            if normalisers.is_text(array.type) and isinstance(step, Quantise | Truncate | Unordered):
                hint = (
                    f' put json before it, as in "json|{step.text}"'
                    if isinstance(step, Unordered)
                    else " give the field such a type (--types),"
                )
                hint = f";{hint} or leave it out"
            raise ConfigurationError(
                f"{self.owner}the normaliser {step.text} does not fit the field {shown}, which has the type {word}: "
                f"it takes {step.takes}{hint}. Nothing was written"
            )
        return _applied(array, step)

    def _called(self, array: pa.Array, step: Function, shown: str) -> pa.Array:
        said = f"{self.owner}the normaliser {step.text} of the field {shown}"
        try:
            made: Any = step.call(array)
        except Exception as error:
            raise ConfigurationError(
                f"{said} failed: {type(error).__name__}: {error}. Nothing was written"
            ) from error
        if isinstance(made, pa.ChunkedArray):
            made = made.combine_chunks()
        if not isinstance(made, pa.Array) or len(made) != len(array):
            what = f"{len(made):,} values" if isinstance(made, pa.Array) else f"a {type(made).__name__}"
            raise ConfigurationError(
                f"{said} gave {what} for an Arrow array of {len(array):,}; it must give an Arrow array with a value "
                "for each. Nothing was written"
            )
        return made


def _alike(step: Step) -> bool:
    """Say whether a step brings integers to the same values as doubles, which may share a plain type."""
    return not isinstance(step, Quantise) or step.step.numerator == 1


def _by_value(value: Any, chain: Chain) -> Any:
    for step in chain:
        value = scalar.normalised(value, step)
    return value


def _takes(step: Step) -> Callable[[pa.DataType], bool]:
    """Say which types of single values a normaliser takes."""
    match step:
        case Quantise():
            return normalisers.is_number
        case Truncate(nanoseconds=nanoseconds):
            # All times of day would be alike.
            return lambda kind: (
                normalisers.is_truncatable(kind) and not (nanoseconds == _DAY and pt.is_time(kind))
            )
        case _:
            return normalisers.is_text


def _fits(kind: pa.DataType, step: Step) -> bool:
    if isinstance(step, Json):
        return (
            normalisers.is_text(kind) or str(kind) == "extension<arrow.json>" or isinstance(kind, MixedType)
        )
    if isinstance(step, Unordered):
        return _has_list(kind)
    takes = _takes(step)
    inside = [leaf for leaf in nested.leaves(kind) if not pt.is_null(leaf)]
    return not inside or any(isinstance(leaf, MixedType) or takes(leaf) for leaf in inside)


def _has_list(kind: pa.DataType) -> bool:
    if isinstance(kind, MixedType) or pt.is_null(kind):
        return True
    if pt.is_struct(kind):
        return any(_has_list(member.type) for member in kind)
    return _has_list(kind.item_type) if pt.is_map(kind) else nested.is_list(kind)


def _applied(array: pa.Array, step: Step) -> pa.Array:
    if isinstance(step, Json):
        return array if isinstance(array.type, MixedType) else nested.from_json(array)
    if isinstance(step, Unordered) and not isinstance(array.type, MixedType):
        return nested.unordered(array, deep=step.deep)
    takes = _takes(step)
    return nested.on_leaves(
        array,
        lambda kind: (
            isinstance(kind, MixedType) or (not isinstance(kind, pa.BaseExtensionType) and takes(kind))
        ),
        partial(_leaf, step=step),
    )


def _leaf(array: pa.Array, step: Step) -> pa.Array:
    """Apply a normaliser to an array of one plain type that it takes, or of mixed ones."""
    if isinstance(array.type, MixedType):
        return nested.by_value(array, lambda value: scalar.normalised(value, step))
    match step:
        case Quantise():
            return normalisers.quantise(array, step)
        case Truncate(nanoseconds=nanoseconds):
            return normalisers.truncate(array, nanoseconds)
        case Text(text="trim"):
            return normalisers.trim(array)
        case _:
            return normalisers.casefold(array)


def _exists(text: str, name: str, types: Mapping[str, pa.DataType]) -> bool:
    """Say whether a path leads somewhere below a field, as far as types can tell."""
    return any(
        root == name and _leads(types[name], rest) for root, rest in roots(text, list(types), glob=True)
    )


def _leads(kind: pa.DataType, parts: Parts) -> bool:
    if not parts or pt.is_null(kind) or isinstance(kind, MixedType) or pt.is_map(kind):
        return True
    if pt.is_struct(kind):
        return any(
            (inner := Selection(include=(parts,)).member(member.name)) is not None
            and (inner.include is None or any(_leads(member.type, rest) for rest in inner.include))
            for member in kind
        )
    return nested.is_list(kind) and parts[0] == ITEMS and _leads(kind.value_type, parts[1:])
