"""Fields whose names are other ones by now: what earlier write logs call them.

Docs: decisions/0022-renamed-fields.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa

from rundiff.baseline.manifest import Manifest, Rename

__all__ = ["Renamed", "applied", "renamed", "renamed_type", "renames_now"]

ALWAYS = 1 << 62
"""Stands for the run under way, which has no number yet: all write logs are of runs before it."""


class Renamed(msgspec.Struct, frozen=True):
    """A field that this run may find under another name."""

    old: str
    pin: str | None
    """Its type before; None where it is accepted as it comes."""


def applied(renames: Mapping[str, Renamed], fields: Mapping[str, None]) -> dict[str, str]:
    """Give those of the renames that a source with these fields has made: old names with the new ones."""
    return {one.old: new for new, one in renames.items() if new in fields and one.old not in fields}


def renames_now(manifest: Manifest | None, over: Mapping[str, str]) -> tuple[Rename, ...]:
    """Give the renames of a baseline and, by the former names, those of the run under way."""
    before = () if manifest is None else manifest.renames
    return (*before, *(Rename(ALWAYS, old, new) for old, new in over.items()))


def _names(names: Sequence[str], run: int, renames: Sequence[Rename]) -> dict[str, int]:
    """Give the members of a struct by their names of now: which ones, by place."""
    places = {name: place for place, name in enumerate(names)}
    for rename in renames:
        if run < rename.run and rename.old in places:
            # What had the new name before held no value.
            places.pop(rename.new, None)
            places = {rename.new if name == rename.old else name: place for name, place in places.items()}
    return places


def renamed_type(kind: pa.DataType, run: int, renames: Sequence[Rename]) -> pa.DataType:
    """Give the type of a run's logged data by the names of now."""
    if not renames or not pa.types.is_struct(kind):
        return kind
    places = _names([field.name for field in kind], run, renames)
    return pa.struct([pa.field(name, kind.field(place).type) for name, place in places.items()])


def renamed(data: pa.StructArray, run: int, renames: Sequence[Rename]) -> pa.StructArray:
    """Give a run's logged data by the names of now."""
    kind = renamed_type(data.type, run, renames)
    if kind is data.type or kind.equals(data.type):
        return data
    places = _names([field.name for field in data.type], run, renames)
    children = [data.field(place) for place in places.values()]
    return pa.StructArray.from_arrays(children, fields=list(kind), mask=data.is_null())
