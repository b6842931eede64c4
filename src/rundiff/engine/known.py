"""What is known of fields before and after a reading: their pinned types."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pyarrow as pa

from rundiff.baseline.manifest import Manifest
from rundiff.engine.reading import Read
from rundiff.model import Scope
from rundiff.sources.pins import arrow_type_of

__all__ = ["known_fields", "known_pins", "never_made"]


def known_pins(manifest: Manifest, scope: Scope) -> dict[str, str]:
    """Give the types that a run reads by: a full one takes accepted fields as they come."""
    accepted = manifest.accepted if scope is Scope.FULL else {}
    renamed = manifest.renamed if scope is Scope.FULL else {}
    pins = {**manifest.pins, **{new: manifest.pins[old] for old, new in renamed.items()}}
    return {name: pin for name, pin in pins.items() if name not in accepted}


def never_made(manifest: Manifest | None, made: Collection[str]) -> list[str]:
    """Give the accepted names that the source does not have yet; `made` are the former ones that it gave up."""
    return [] if manifest is None else [new for old, new in manifest.renamed.items() if old not in made]


def known_fields(read: Read, before: Mapping[str, str], without: Collection[str]) -> dict[str, pa.DataType]:
    """Give all fields with their pinned types, those of earlier readings included, but those named in `without`."""
    pins = {name: pin for name, pin in {**before, **read.pins}.items() if name not in without}
    names = dict.fromkeys([*read.fields, *pins])
    return {name: arrow_type_of(pins[name]) if name in pins else pa.null() for name in names}
