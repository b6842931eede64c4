"""From write records to the baseline's entries: with their partitions and field signatures, where there are any."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pyarrow as pa

from rundiff.baseline.merge import no_partitions
from rundiff.baseline.segments import FLAG_DELETED, entries, entry_schema
from rundiff.engine.changeset import Findings
from rundiff.engine.fieldsignatures import FieldSigner
from rundiff.engine.forming import preparation_of_form
from rundiff.engine.partitions import as_partitions, record_partitions
from rundiff.errors import ConfigurationError
from rundiff.signing.contract import SigningKey
from rundiff.signing.preparing import Preparation

__all__ = ["Making", "SignedFields", "signer_of"]

SignedFields = tuple[FieldSigner, tuple[str, ...]]
"""What signs single fields, and which."""

_COLUMNS = ["primary_key_signature", "data_signature", "primary_key"]


class Making(msgspec.Struct, frozen=True):
    """How entries are made of write records."""

    partition_by: Sequence[str]
    """The fields that part the records."""
    key: SigningKey | None
    """Partitions are signed under it."""
    fields: SignedFields | None = None

    @property
    def columns(self) -> list[str]:
        """What is needed of write records."""
        if self.fields is not None:
            return [*_COLUMNS, "data"]
        return [*_COLUMNS, *(f"data.{name}" for name in self.partition_by)]

    def schema(self, primary_key: pa.StructType) -> pa.Schema:
        """Give the schema of entries of keys of a type."""
        signed = None if self.fields is None else self.fields[1]
        return entry_schema(primary_key, parted=bool(self.partition_by), signed=signed)

    def entries(self, batch: pa.RecordBatch, run: int, flags: int = 0) -> pa.RecordBatch:
        """Make entries of write records that have `columns`."""
        partition = fields = None
        if flags & FLAG_DELETED:
            partition = no_partitions(batch.num_rows) if self.partition_by else None
        else:
            data = batch.column("data") if "data" in batch.schema.names else batch.column("primary_key")
            records = pa.RecordBatch.from_struct_array(data)
            if self.partition_by:
                partition = as_partitions(record_partitions(records, self.partition_by, self.key))
            if self.fields is not None:
                fields = self.fields[0].sign(records, self.fields[1])
        return entries((batch.column(0), batch.column(1)), batch.column(2), run, flags, partition, fields)


def signer_of(
    findings: Findings, key: SigningKey | None, preparation: Preparation | None = None
) -> SignedFields | None:
    """Give what signs single fields as a change set's run does; None if it does not, or no more can.

    Without its function entries go without field signatures, until their records are read again.
    """
    if not findings.field_signatures:
        return None
    if preparation is None or preparation.form != findings.form:
        asked = Preparation(primary_key=findings.primary_key, owner=f"sync {findings.name}: ")
        try:
            preparation = preparation_of_form(findings.form, asked)
        except ConfigurationError:
            return None
    names = tuple(name for name in findings.fields if name not in findings.primary_key)
    return FieldSigner(findings.primary_key, preparation, key), names
