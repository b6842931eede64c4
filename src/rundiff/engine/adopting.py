"""`rundiff adopt`: a first baseline from what the destination already holds.

The source is read for its fields and their types alone; each row of the table is then signed as if it were a
record of the source. The next run compares the source with that, and writes only the difference.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.manifest import Memory
from rundiff.baseline.order import SIGNATURE
from rundiff.baseline.segments import entries
from rundiff.database.contract import Acknowledged, StoredSync
from rundiff.destinations.contract import Destination, Position, Readable, Target
from rundiff.engine.adoptable import refuse_known, refuse_marked, refuse_shared
from rundiff.engine.adopted import Adopted, flagged
from rundiff.engine.appending import refuse_later_runs
from rundiff.engine.changeset import ENTRIES, ChangeSet, Findings, write_entries
from rundiff.engine.compared import compared_fields
from rundiff.engine.fieldsignatures import FieldSigner
from rundiff.engine.flow import failing
from rundiff.engine.forming import preparation_of
from rundiff.engine.partitions import as_partitions, record_partitions
from rundiff.engine.planning import refuse_unfinished
from rundiff.engine.report import planned_result
from rundiff.engine.run import Execution
from rundiff.engine.scoping import reach_of
from rundiff.engine.session import Backends, Session, refuse_other
from rundiff.engine.spelled import read_back
from rundiff.engine.starting import start
from rundiff.engine.verifying import readable
from rundiff.engine.views import Progress
from rundiff.errors import KeyFieldMissing, RecordsRefused, SourceError
from rundiff.model import BaselineState, Counts, RunKind, RunResult
from rundiff.settings import SyncSettings
from rundiff.signing import sign_both, signer_name
from rundiff.signing.preparing import Preparation
from rundiff.sources.contract import ReadRequest, Source
from rundiff.sources.pins import arrow_type_of

__all__ = ["adopt", "preview_adoption"]

NOTHING = b"\0" * 32


class _Adopting(msgspec.Struct, frozen=True, dict=True):
    """What an adoption works with."""

    backends: Backends
    settings: SyncSettings
    source: Source
    destination: Readable
    target: Target

    @cached_property
    def preparation(self) -> Preparation:
        """The form in which records are signed."""
        return preparation_of(self.settings)

    def found(self, folder: Path, sync: StoredSync | None, baseline: str) -> ChangeSet:
        """Read source and table, and leave a change set of entries without write records."""
        names, pins = self._fields()
        settings, key = self.settings, self.backends.signing_key
        fields = tuple(compared_fields(names, settings.comparison, settings.primary_key))
        types = {name: arrow_type_of(pins[name]) for name in names if name in pins}
        self.destination.check(self.target, types)
        refuse_marked(settings, (self.destination, self.target), names)
        refuse_later_runs(self.backends.database, self.destination, self.target)
        parted = reach_of(settings, Memory(), self.backends.database.now()).partition_by
        with Adopted(folder) as adopted:
            for texts in self.destination.stored(self.target, fields):
                adopted.known.update(dict.fromkeys(texts.schema.names))
                self._take(adopted, texts, (fields, pins), parted)
                if self.backends.progress is not None:
                    self.backends.progress(Progress(phase="reading", done=adopted.rows))
        count = write_entries(folder / ENTRIES, adopted.entries())
        adopted.clear()
        counts = dict.fromkeys(Counts.__struct_fields__, 0)
        counts |= {"records_read": adopted.rows, "unchanged": count - adopted.odd, "duplicates": 0}
        for name in ("deletes_held", "written", "failed"):
            del counts[name]
        changes = ChangeSet(
            folder,
            Findings(
                sync_id=None if sync is None else sync.sync_id,
                name=settings.name,
                source=self.backends.home.relative(self.source.location),
                primary_key=settings.primary_key,
                destination=self.destination.identity,
                new_action=str(self.destination.capabilities.new_action),
                manifest=None,
                baseline=baseline,
                baseline_records=0,
                fields=fields,
                form=self.preparation.form,
                field_signatures=settings.comparison.field_signatures,
                pins=pins,
                # The next run has to read the source before anything can be told of it.
                complete=False,
                reasons=(),
                ends_with_newline=None,
                signing_key_id=None if key is None else key.id,
                counts=counts,
                samples={},
                warnings=_warnings(
                    adopted,
                    [n for n in fields if n not in adopted.known],
                    count,
                    deleting=settings.scoping.scope != "incremental",
                ),
                extra_entries=count,
                existing=count,
                signer=signer_name(),
                memory=Memory(partition_by=parted),
            ),
        )
        changes.save()
        return changes

    def _fields(self) -> tuple[list[str], dict[str, str]]:
        """Read the source to its end for its fields and their types."""
        settings = self.settings
        names: dict[str, None] = {}
        request = ReadRequest(options=settings.reading, primary_key=settings.primary_key)
        with self.source.open(request) as reading:
            for batch in reading:
                names.update(dict.fromkeys(batch.records.schema.names))
            pins = dict(reading.pins)
        if not names:
            raise SourceError(
                f"sync {settings.name}: the source has no records, so the fields to adopt are not known. Adopt when it "
                "has some"
            )
        missing = [name for name in settings.primary_key if name not in names]
        if missing:
            raise KeyFieldMissing(
                f"sync {settings.name}: the source has no field {', '.join(missing)}, which the primary key names; it "
                f"has {', '.join(list(names)[:20])}"
            )
        return list(names), pins

    def _take(
        self,
        adopted: Adopted,
        texts: pa.RecordBatch,
        signed: tuple[tuple[str, ...], dict[str, str]],
        parted: Sequence[str],
    ) -> None:
        """Make entries of some rows."""
        key, signing_key = list(self.settings.primary_key), self.backends.signing_key
        fields, pins = signed
        adopted.rows += texts.num_rows
        back = read_back(texts, pins)
        named = np.ones(texts.num_rows, dtype=np.bool_)
        for name in key:
            named &= back.records.column(name).is_valid().to_numpy(zero_copy_only=False)
        named &= self._spelled_alike(texts, back.records, named)
        adopted.unnamed += int(np.count_nonzero(~named))
        adopted.fields.update(dict.fromkeys(name for name in back.fields if name not in key))
        records, odd = back.records.filter(pa.array(named)), back.odd[named]
        prepared = self.preparation.applied(records, fields)
        keys, data = sign_both(prepared, (key, fields), signing_key)
        odd = odd | data.signatures.is_null().to_numpy(zero_copy_only=False)
        signatures = pc.if_else(data.signatures.is_valid(), data.signatures, pa.scalar(NOTHING, SIGNATURE))
        partition = None
        if parted:
            partition = as_partitions(record_partitions(records, parted, signing_key))
        singly = None
        if self.settings.comparison.field_signatures:
            signer = FieldSigner(self.settings.primary_key, self.preparation, signing_key)
            singly = signer.sign_prepared(prepared, [name for name in fields if name not in key])
        made = entries(
            (keys.signatures, signatures),
            pa.StructArray.from_arrays([records.column(name) for name in key], names=key),
            written_run=0,
            partition=partition,
            fields=singly,
        )
        adopted.add(flagged(made, odd))

    def _spelled_alike(self, texts: pa.RecordBatch, records: pa.RecordBatch, named: np.ndarray) -> np.ndarray:
        """Mark rows that a record of their key would find: a column of text may spell 4 as `4.0`, too."""
        key = list(self.settings.primary_key)
        doubtful = np.zeros(texts.num_rows, dtype=np.bool_)
        for name in key:
            doubtful |= _differ(_plain(records.column(name)), texts.column(name))
        rows = np.flatnonzero(doubtful & named)
        alike = np.ones(texts.num_rows, dtype=np.bool_)
        if not len(rows):
            return alike
        at = pa.array(rows)
        try:
            told = self.destination.echo(self.target, records.select(key).take(at))
        except RecordsRefused:
            # The columns take no such key: no record will ever find these rows.
            alike[rows] = False
            return alike
        for name in key:
            alike[rows] &= ~_differ(told.column(name), texts.column(name).take(at))
        return alike


def _plain(array: pa.Array) -> pa.Array:
    """Spell values as nearly all columns do; nulls where only the destination can tell."""
    if pa.types.is_string(array.type) or pa.types.is_integer(array.type):
        return array.cast(pa.string())
    return pa.nulls(len(array), pa.string())


def _differ(left: pa.Array, right: pa.Array) -> np.ndarray:
    same = pc.fill_null(pc.equal(left, right), False)
    mask: np.ndarray = pc.invert(same).to_numpy(zero_copy_only=False)
    return mask


def _warnings(adopted: Adopted, lacking: Sequence[str], count: int, *, deleting: bool) -> tuple[str, ...]:
    warnings = []
    if lacking and adopted.rows:
        warnings.append(
            f"the table has no column {', '.join(lacking[:10])}: records that have a value there will be updated"
        )
    if adopted.unnamed:
        warnings.append(
            f"{adopted.unnamed:,} row{'s' * (adopted.unnamed > 1)} without a key that the source could have, in the "
            "spelling that a run would write: not adopted, and left alone"
        )
    if adopted.odd:
        why = [f"values of {', '.join(list(adopted.fields)[:10])} that can't be read back"] * bool(
            adopted.fields
        )
        why += [f"{adopted.repeated:,} keys with several rows"] * bool(adopted.repeated)
        warnings.append(
            f"{adopted.odd:,} row{'s' * (adopted.odd > 1)} can't be compared ({'; '.join(why)}): the next run writes "
            "those that the source has"
        )
    if count and deleting:
        warnings.append(
            "rows that the source does not have will be deleted by the next complete run, as guards allow; "
            "`rundiff plan` shows what it would do"
        )
    return tuple(warnings)


def adopt(session: Session, settings: SyncSettings, source: Source) -> RunResult:
    """Make a first baseline of the destination's rows, in a run of its own that writes no row.

    Raises `StateChanged` if the sync has a baseline, `ConfigurationError` for destinations that can't be
    read back and for tables of several syncs, `DestinationError` if there is no table.
    """
    destination = readable(session.destination, session.sync.name)
    refuse_known(session.sync)
    refuse_shared(session.backends, settings, (destination, session.target))
    execution = Execution.begin(session, RunKind.ADOPT, Baseline.empty())
    with failing(execution):
        started = start(session.backends, settings, (destination, session.target), session.sync)
        execution.begin_from(started)
        folder = session.backends.home.new_spool(session.sync.sync_id)
        work = _Adopting(session.backends, settings, source, destination, session.target)
        changes = work.found(folder, session.sync, str(BaselineState.FIRST))
        changes = execution.seal(changes)
        # It has no write records, so this takes away marks that no database knows, and nothing else.
        execution.deliver(changes, settings)
        number = execution.run.run
        # From now on a table that is dropped or restored is noticed.
        destination.claim(session.target, Position(run=number, sequence=0))
        return execution.commit(changes, position=Acknowledged(number, 0))


def preview_adoption(
    backends: Backends, settings: SyncSettings, source: Source, destination: Destination
) -> RunResult:
    """Say what an adoption would find, without changing any state."""
    began = time.monotonic()
    folder = Path(mkdtemp(prefix="adopt-", dir=backends.home.root))
    try:
        there = readable(destination, settings.name)
        _, sync = refuse_other(backends, settings, destination, source.location)
        if sync is not None:
            refuse_known(sync)
            refuse_unfinished(backends, sync)
        target = Target(
            sync_id="" if sync is None else sync.sync_id,
            sync=settings.name,
            primary_key=settings.primary_key,
        )
        refuse_shared(backends, settings, (destination, target))
        start(backends, settings, (destination, target), sync)
        work = _Adopting(backends, settings, source, there, target)
        changes = work.found(folder, sync, str(BaselineState.FIRST))
        return replace(planned_result(changes.findings, time.monotonic() - began), kind=RunKind.ADOPT)
    finally:
        destination.close()
        shutil.rmtree(folder, ignore_errors=True)
