"""How the baseline was signed, where a run asks for another rule: other fields, another form, another key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.engine.renaming import Renamed, applied
from rundiff.engine.retyping import changed_pins
from rundiff.engine.session import Backends
from rundiff.errors import ConfigurationError
from rundiff.signing import SigningKey
from rundiff.signing.preparing import Preparation
from rundiff.sources.conform import conform

__all__ = ["Former", "key_with_id", "refuse_other_key", "signing_key_words"]


Flags = npt.NDArray[np.bool_]


class Former(msgspec.Struct, frozen=True, kw_only=True):
    """The rule of the baseline, where this run asks for another one."""

    primary_key: tuple[str, ...]
    known: frozenset[str]
    """The fields that had values before."""
    left_out: frozenset[str]
    """Those of them that were not compared."""
    preparation: Preparation
    """What was done to values before they were signed."""
    key: SigningKey | None
    retyped: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The types that fields had before which now come as they are."""
    renamed: Mapping[str, Renamed] = msgspec.field(default_factory=dict)
    """Fields that may come under other names, by the new ones."""
    adopt: bool = False
    """Whether fields that are new take part in the comparison only from now on."""
    blind: bool = False
    """Whether nothing can be signed by it any more, so that only the write log tells what is the same."""
    whole: bool = True
    """Whether every record may be signed otherwise; else only those that have new fields."""
    differences: tuple[str, ...] = ()
    """What else is other than it was, in words for messages."""
    twice: bool = True
    """Whether this run goes over to the rule asked for; else it goes on under the former one."""

    def named(self, fields: Collection[str]) -> tuple[str, ...]:
        """Say what is other than it was, in words for messages; of the types, only those of `fields`."""
        retyped = [name for name in self.retyped if name in fields]
        names = [
            f"{new} (before: {old})" for old, new in applied(self.renamed, dict.fromkeys(fields)).items()
        ]
        words = [f"the names of {', '.join(names)}"] if names else []
        words += [f"the types of {', '.join(retyped)}"] if retyped else []
        return (*self.differences, *words)

    def retypes(self, pins: Mapping[str, str]) -> dict[str, str]:
        """Give the types of now, of `pins`, of fields that had other ones."""
        before = {new: one.pin for new, one in self.renamed.items() if one.pin is not None}
        return changed_pins({**before, **self.retyped}, pins)

    def names(self, names: Sequence[str]) -> list[str]:
        """Give the names that fields of a batch had before."""
        here = {one.old: new for new, one in self.renamed.items() if new in names and one.old not in names}
        back = {new: old for old, new in here.items()}
        return [back.get(name, name) for name in names]

    def typed(self, records: pa.RecordBatch) -> tuple[pa.RecordBatch, Flags | None]:
        """Give records with the types and names of before, and mark those with values that had none."""
        astray = np.full(records.num_rows, self.blind, dtype=np.bool_)
        pins = {new: one.pin for new, one in self.renamed.items() if one.pin is not None}
        for name, pin in {**pins, **self.retyped}.items():
            at = records.schema.get_field_index(name)
            if at < 0:
                continue
            column, misfit = conform(records.column(at), pin, explicit=True)
            records = records.set_column(at, name, column)
            if misfit is not None:
                astray |= misfit
        records = records.rename_columns(self.names(records.schema.names)) if self.renamed else records
        return records, astray if astray.any() else None

    def compared(self, names: Iterable[str], asked: Collection[str]) -> list[str]:
        """Choose the fields that the former rule compares; `asked` are those that the one asked for does."""
        return [
            name
            for name in names
            if name in self.primary_key
            or (name not in self.left_out if name in self.known else name in asked and not self.adopt)
        ]


def key_with_id(backends: Backends, key_id: str | None) -> SigningKey | None:
    """Give the signing key of an id, the present one or the former; None for none.

    Raises `ConfigurationError` where it is not at hand.
    """
    if key_id is None:
        return None
    for key in (backends.signing_key, *backends.former_keys):
        if key is not None and key.id == key_id:
            return key
    raise ConfigurationError(
        f"the signing key {key_id} is not at hand; give it as RUNDIFF_SIGNING_KEY, or as "
        "RUNDIFF_SIGNING_KEY_FORMER while keys are rotated"
    )


def refuse_other_key(backends: Backends, name: str, key_id: str | None) -> None:
    """Refuse a run under another signing key than the baseline's, unless the former one is named."""
    asked = backends.signing_key
    if key_id in [None if key is None else key.id for key in (asked, *backends.former_keys)]:
        return
    raise ConfigurationError(
        f"sync {name} was signed {signing_key_words(key_id)}, but now runs "
        f"{signing_key_words(asked.id if asked else None)}. Restore RUNDIFF_SIGNING_KEY as it was; or, to rotate the "
        f"key, set RUNDIFF_SIGNING_KEY_FORMER to "
        f"{'nothing (RUNDIFF_SIGNING_KEY_FORMER=)' if key_id is None else 'the former key'} until a full run is "
        f"committed; or `rundiff reset {name}` to sign everything anew"
    )


def signing_key_words(key_id: str | None) -> str:
    """Say under which key something is signed."""
    return "without a signing key" if key_id is None else f"under the signing key {key_id}"
