"""Retry what was set aside, in a run of its own; or drop an entry of the quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.columns import conform, unify_types
from rundiff.baseline.order import argsort, first_of_group, words
from rundiff.database.contract import Failure
from rundiff.engine.anew import anew_for
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.flow import deliver_changes, failing
from rundiff.engine.inspect import key_signature
from rundiff.engine.log import CREATES, DELETES, UPDATES, LogWriter, change_batches, log_schema
from rundiff.engine.lost import refusal
from rundiff.engine.run import Execution
from rundiff.engine.session import Session
from rundiff.engine.starting import start
from rundiff.errors import StateChanged
from rundiff.model import Action, BaselineState, Match, RunKind, RunResult
from rundiff.settings import SyncSettings

__all__ = ["discard_record", "retry"]

_FILES = (DELETES, UPDATES, CREATES)
_SETTLED, _DELETE, _UPDATE, _CREATE = -1, 0, 1, 2
"""What a record needs now; from 0 on the place of its file in `_FILES`."""
_READ_ROWS = 1 << 17


def retry(session: Session, settings: SyncSettings, key: Mapping[str, Any] | None) -> RunResult:
    """Send what is set aside once more, in a run of its own and hence under new idempotency keys.

    The data are those of the write log; the action is what the baseline says now, so that a record
    which the destination holds already is not sent. With `key`, only that record. Raises
    `StateChanged` if nothing is set aside that could be sent.
    """
    name = session.sync.name
    failures = _sendable(session, _chosen(session, key))
    execution = Execution.begin(session, RunKind.RETRY, Baseline.empty())
    with failing(execution):
        where = (session.destination, session.target)
        started = start(session.backends, settings, where, session.sync)
        if started.state is BaselineState.LOST:
            raise refusal(name, started.lost, session.destination)
        execution.begin_from(started)
        changes = _changes(execution, failures)
        changes.save()
        execution.settled = {(failure.run, failure.sequence) for failure in failures}
        return deliver_changes(execution, execution.seal(changes), settings)


def discard_record(session: Session, key: Mapping[str, Any]) -> int:
    """Drop the open entries of one record; gives their number.

    The baseline stays as it is: a run that reads the record and finds it different tries again.
    """
    chosen = _chosen(session, key)
    session.backends.database.settle_failures(
        session.sync.sync_id,
        session.token,
        [(failure.run, failure.sequence) for failure in chosen],
        "discarded",
    )
    return len(chosen)


def _chosen(session: Session, key: Mapping[str, Any] | None) -> Sequence[Failure]:
    name = session.sync.name
    found = session.backends.database.failures(session.sync.sync_id)
    if key is not None:
        wanted = key_signature(session.backends, session.sync, key)
        found = [failure for failure in found if failure.primary_key_signature == wanted]
    if not found:
        what = "nothing is" if key is None else "this record is not"
        raise StateChanged(
            f'sync {name}: {what} set aside; `rundiff sql "SELECT * FROM failures"` lists what was'
        )
    return found


def _sendable(session: Session, found: Sequence[Failure]) -> list[Failure]:
    """Leave out what never became a write record, and what a reset or rollback made void."""
    database, sync = session.backends.database, session.sync
    runs = {number: database.run(sync.sync_id, number) for number in {failure.run for failure in found}}
    kept = [
        failure
        for failure in found
        if failure.sequence > 0
        and (run := runs[failure.run]) is not None
        and run.sealed is not None
        and "void" not in run.details
    ]
    if not kept or sync.manifest is None:
        raise StateChanged(
            f"sync {sync.name}: nothing that is set aside can be sent again as it is, for it has no write record "
            "that counts; the next complete run judges it anew"
        )
    return kept


def _changes(execution: Execution, failures: Sequence[Failure]) -> ChangeSet:
    """Write the change set: the failed write records, with the action that each needs now."""
    session, baseline = execution.session, execution.baseline
    # The newest first, so that the first of a key is the last that was tried.
    parts = [
        _judged(action, batch, baseline) for action, batch in _failed_records(session, failures, baseline)
    ][::-1]
    data: pa.DataType = pa.null()
    key: pa.DataType = pa.null()
    for part in parts:
        data = unify_types(data, part.schema.field("data").type)
        key = unify_types(key, part.schema.field("primary_key").type)
    schema = log_schema(key, data)
    table = pa.concat_tables(
        [
            pa.table(
                [*(conform(part.column(f.name), f.type) for f in schema), part.column("needs")],
                [*schema.names, "needs"],
            )
            for part in parts
        ]
    )
    keys = words(table.column("primary_key_signature"))
    order = argsort(keys)
    table = table.take(pa.array(order[first_of_group(keys[order])]))
    needs = table.column("needs").to_numpy()
    folder = session.backends.home.new_spool(session.sync.sync_id)
    counts = []
    for place, name in enumerate(_FILES):
        rows = table.filter(pa.array(needs == place)).drop_columns(["needs"]).combine_chunks()
        with LogWriter(folder / name) as writer:
            for batch in rows.cast(schema).to_batches():
                writer.write(batch)
        counts.append(writer.rows)
    return ChangeSet(folder, _findings(execution, failures[-1].run, counts))


def _findings(execution: Execution, last_run: int, counts: list[int]) -> Any:
    session, baseline = execution.session, execution.baseline
    before = ChangeSet.load(session.log(last_run)).findings
    manifest = baseline.manifest
    assert manifest is not None  # noqa: S101 -- a sync with a committed run has one
    deleted, updated, created = counts
    return msgspec.structs.replace(
        before,
        new_action=str(session.destination.capabilities.new_action),
        manifest=session.sync.manifest,
        baseline=str(BaselineState.FOUND),
        baseline_records=baseline.live,
        counts={
            **dict.fromkeys(before.counts, 0),
            "created": created,
            "updated": updated,
            "deleted": deleted,
        },
        hold_deletions=None,
        hold_run=None,
        extra_entries=0,
        repeated=0,
        existing=0,
        # What earlier readings found stays as it is: a retry reads nothing.
        complete=False,
        memory=None,
        reasons=(),
        samples={},
        warnings=(),
        aside=(),
        fields=manifest.fields,
        form=manifest.form,
        left_out=manifest.left_out,
        signing_key_id=manifest.signing_key_id,
        renewed=None,
        rekeyed=False,
        renamed={},
        accepted=None,
        # Records are sent as they were logged, perhaps under other types; the next run that reads them tells.
        field_signatures=False,
        pins=manifest.pins,
        ends_with_newline=manifest.ends_with_newline,
    )


def _failed_records(
    session: Session, failures: Sequence[Failure], baseline: Baseline
) -> Iterator[tuple[Action, pa.RecordBatch]]:
    """Read the write records of failures, run by run, oldest first, signed as the baseline is."""
    database, sync_id = session.backends.database, session.sync.sync_id
    for number in sorted({failure.run for failure in failures}):
        run = database.run(sync_id, number)
        assert run is not None and run.sealed is not None  # noqa: S101, PT018 -- `_sendable` saw to it
        anew = anew_for(
            session.backends, ChangeSet.load(session.log(number)).findings, number, baseline.manifest
        )
        wanted = np.array(sorted(f.sequence for f in failures if f.run == number))
        for batch in change_batches(session.log(number), number, run.sealed, _READ_ROWS):
            inside = wanted[(wanted >= batch.first_sequence) & (wanted <= batch.last_sequence)]
            if len(inside):
                chosen = batch.records.take(pa.array(inside - batch.first_sequence))
                yield batch.action, chosen if anew is None else anew.records(chosen)


def _judged(action: Action, records: pa.RecordBatch, baseline: Baseline) -> pa.RecordBatch:
    """Add the column `needs`: what brings the destination to what these records say."""
    match, _ = baseline.lookup.probe(records.column(0), records.column(1))
    if action is Action.DELETE:
        needs = np.where(match == Match.NEW, _SETTLED, _DELETE)
    else:
        needs = np.select([match == Match.NEW, match == Match.CHANGED], [_CREATE, _UPDATE], _SETTLED)
    return records.append_column("needs", pa.array(needs.astype(np.int8)))
