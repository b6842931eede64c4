"""Sign what an earlier run left in the write log as a later run signs: for `rebuild` and `retry`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.manifest import Manifest, Rename
from rundiff.baseline.order import SIGNATURE
from rundiff.baseline.segments import FLAG_UNCERTAIN
from rundiff.engine.changeset import Findings
from rundiff.engine.fieldsignatures import in_entries
from rundiff.engine.former import key_with_id
from rundiff.engine.forming import preparation_of_form
from rundiff.engine.previous import rekeyed
from rundiff.engine.renaming import renamed
from rundiff.engine.retyping import changed_pins, retyped, retyped_struct
from rundiff.engine.session import Backends
from rundiff.errors import ConfigurationError
from rundiff.signing import SigningKey, sign
from rundiff.signing.preparing import Preparation

__all__ = ["Anew", "anew_for"]


class Anew(msgspec.Struct, frozen=True):
    """The rule of a later run, for what an earlier one left."""

    backends: Backends
    left: Findings
    rule: Findings | Manifest
    run: int = 0
    """The earlier one's number."""
    renames: tuple[Rename, ...] = ()

    @property
    def key(self) -> SigningKey | None:
        """The signing key of the later run."""
        return key_with_id(self.backends, self.rule.signing_key_id)

    @property
    def alike(self) -> bool:
        """Whether both runs sign alike."""
        out = [set(side.left_out or ()) for side in (self.left, self.rule)]
        keys = [side.signing_key_id for side in (self.left, self.rule)]
        forms = self.left.form == self.rule.form and out[0] == out[1]
        renamed = any(self.run < rename.run for rename in self.renames)
        return keys[0] == keys[1] and forms and not self._retypes and not renamed

    @property
    def _retypes(self) -> dict[str, str]:
        pins, now = dict(self.left.pins), self.rule.pins
        for rename in self.renames:
            if self.run < rename.run and rename.old in pins:
                pins[rename.new] = pins.pop(rename.old)
        return changed_pins(pins, now)

    def records(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Sign write records; what can't be signed differs from everything."""
        if self.alike or batch.num_rows == 0:
            return batch
        key, data = self.key, renamed(batch.column("data"), self.run, self.renames)
        at = batch.schema.get_field_index("data")
        batch = batch.set_column(at, "data", data)
        names = [field.name for field in data.type]
        compared = [name for name in names if name not in (self.rule.left_out or ())]
        records = retyped(pa.RecordBatch.from_arrays(data.flatten(), names), self._retypes)
        signed = self._signed(records, compared)
        known = pc.and_(data.is_valid(), signed.is_valid())
        signatures = {
            "primary_key_signature": rekeyed(batch.column("primary_key"), key),
            "data_signature": pc.if_else(known, signed, pa.scalar(bytes(32), SIGNATURE)),
        }
        for name, column in signatures.items():
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, batch.schema.field(at), column)
        return batch

    def logged(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Sign write records to make entries of them: their data are given in the types of the later run, too."""
        batch = self.records(batch)
        at = batch.schema.get_field_index("data")
        return batch.set_column(at, "data", retyped_struct(batch.column(at), self._retypes))

    def _signed(self, records: pa.RecordBatch, compared: Sequence[str]) -> pa.Array:
        asked = Preparation(primary_key=self.left.primary_key, owner=f"sync {self.left.name}: ")
        try:
            preparation = preparation_of_form(self.rule.form, asked)
        except ConfigurationError:
            # A function that is not at hand.
            return pa.nulls(records.num_rows, SIGNATURE)
        return sign(preparation.applied_where_it_fits(records, compared), compared, self.key).signatures

    def entries(self, table: pa.Table) -> pa.Table:
        """Sign entries without write records: what they hold is not known, so they become uncertain."""
        if self.alike or table.num_rows == 0:
            return table
        signed = rekeyed(table.column("primary_key").combine_chunks(), self.key)
        flags = table.column("flags").to_numpy() | np.uint8(FLAG_UNCERTAIN)
        for name, column in {"primary_key_signature": signed, "flags": pa.array(flags)}.items():
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), column)
        return in_entries(table, None)


def anew_for(backends: Backends, left: Findings, run: int, manifest: Manifest | None) -> Anew | None:
    """Give what signs a run's write records as a baseline is signed; None where they are."""
    anew = None if manifest is None else Anew(backends, left, manifest, run, manifest.renames)
    return None if anew is None or anew.alike else anew
