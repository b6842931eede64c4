"""Turn what was read into a change set: conflicts resolved, deletions found, guards judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.ahead import ahead
from rundiff.baseline.baseline import Baseline
from rundiff.baseline.columns import as_struct
from rundiff.baseline.order import Halves, distinct, first_of_group, words
from rundiff.compare.conflicts import NO_WINNER, QUARANTINED, Candidates, Strategy, resolve
from rundiff.compare.decision import Decision, decide
from rundiff.compare.scopes import among, judge_misses
from rundiff.compare.seen import Seen
from rundiff.engine.changed import which_changed
from rundiff.engine.changeset import ENTRIES, Aside, write_entries
from rundiff.engine.contests import Implied, chooser, content_numbers, contest_of, ranks
from rundiff.engine.existing import without_existing
from rundiff.engine.fieldsignatures import FieldSignatures
from rundiff.engine.log import CREATES, UPDATES, LogWriter, log_schema
from rundiff.engine.previous import PreviousRecords
from rundiff.engine.reading import SAMPLES, Read, key_texts
from rundiff.engine.renewing import Renewed
from rundiff.engine.rules import ReadingRules
from rundiff.engine.spool import Spool
from rundiff.engine.watching import MARKED
from rundiff.errors import PolicyViolation
from rundiff.model import Match
from rundiff.settings import Policies
from rundiff.signing import SigningKey
from rundiff.signing.preparing import Preparation

__all__ = [
    "Absence",
    "Comparing",
    "Found",
    "Parting",
    "complete_renewed",
    "digest_change",
    "find_changes",
    "prefetch_previous",
]

CHUNK = 1 << 17
PREFETCH = 1 << 19
"""As many former records are kept in memory at most; more are read range by range."""


class Parting(msgspec.Struct, frozen=True, kw_only=True):
    """How the records of a sync are parted."""

    fields: tuple[str, ...]
    signing_key: SigningKey | None
    partitions: Halves | None = None
    """Of all positions of the baseline, where this run needs them."""
    covered: Halves | None = None
    """In partition scope: the partitions that the run covers."""
    anew: bool = False
    """Whether the baseline has other ones than these, or none."""


class Comparing(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a comparison works with."""

    folder: Path
    primary_key: tuple[str, ...]
    compared: tuple[tuple[str, ...], Preparation]
    """The compared fields, those of the baseline too, and the form in which they are."""
    fields: Mapping[str, pa.DataType]
    """All fields of this and earlier readings, in order; the null type where there never was a value."""
    baseline: Baseline
    seen: Seen
    previous: PreviousRecords
    policies: Policies
    strategy: Strategy
    existing: Callable[[pa.RecordBatch], pa.BooleanArray] | None
    """At a first run into a destination that holds rows already: which of these keys it has."""
    assume: bool = False
    """`rebaseline`: new keys become entries, not write records."""
    parting: Parting | None = None
    absence: bool = False
    """Whether a key that was covered and not read is gone from the source."""
    marks: bool = False
    """Whether the source marks deletions itself."""
    renewed: Renewed | None = None
    """Under two rules: what the baseline's entries are signed with from now on."""
    refresh: bool = False
    """Whether all records are sent, unchanged ones, too."""
    pins: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The types of now; write logs may have values of former ones."""
    field_signatures: FieldSignatures | None = None
    """Of the baseline's entries, where the sync asks for them."""
    gained: npt.NDArray[np.bool_] | None = None
    """Positions of entries that are written anew for the field signatures that they gained."""

    @property
    def signed_fields(self) -> tuple[str, ...]:
        """The fields that have signatures of their own."""
        return tuple(name for name in self.compared[0] if name not in self.primary_key)

    @cached_property
    def covered(self) -> npt.NDArray[np.bool_] | None:
        """Mark the positions whose keys a complete reading covers; None: all of them."""
        parting = self.parting
        if parting is None or parting.covered is None or parting.partitions is None:
            return None
        return among(parting.partitions, parting.covered)

    @cached_property
    def absent(self) -> Absence:
        """The live keys that the reading covered and did not meet; only asked for once it has ended."""
        if not self.absence:
            return Absence(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, np.uint8))
        missing = self.baseline.live_mask() & ~self.seen.read
        if self.covered is not None:
            missing &= self.covered
        unread = np.flatnonzero(missing)
        decision = decide(known=True, read=np.zeros(len(unread), dtype=np.bool_), same=True)
        gone = unread[decision == Decision.DELETE]
        delete_after = self.policies.delete_after_misses
        if delete_after == 1:
            return Absence(gone, np.empty(0, dtype=np.int64), np.empty(0, np.uint8))
        due, misses = judge_misses(self.baseline.misses()[gone], delete_after)
        return Absence(gone[due], gone[~due], misses[~due])

    @property
    def gone(self) -> npt.NDArray[np.int64]:
        """The positions of the keys that are to be deleted because they were not read."""
        return self.absent.due


class Absence(msgspec.Struct, frozen=True):
    """Keys that a run covered and did not read, by their positions."""

    due: npt.NDArray[np.int64]
    """To be deleted now."""
    pending: npt.NDArray[np.int64]
    """Not yet."""
    misses: npt.NDArray[np.uint8]
    """Of the pending ones, this run included."""


class Found(msgspec.Struct):
    """What a comparison found."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    unchanged: int = 0
    duplicates: int = 0
    conflicts: int = 0
    existing: int = 0
    extra_entries: int = 0
    repeated: int = 0
    """Deletions written before that are written again, at a full refresh."""
    marked: list[npt.NDArray[np.int64]] = msgspec.field(default_factory=list)
    """Positions of keys that the source itself calls deleted."""
    conflict_samples: list[str] = msgspec.field(default_factory=list)
    duplicate_samples: list[str] = msgspec.field(default_factory=list)
    aside: list[Aside] = msgspec.field(default_factory=list)
    digest: Any = msgspec.field(default_factory=hashlib.sha256)
    """Over the deletions."""
    whole_digest: Any = msgspec.field(default_factory=hashlib.sha256)
    """Over all changes: action, key and data."""


def prefetch_previous(work: Comparing, spool: Spool, also: npt.NDArray[np.int64] | None = None) -> None:
    """Read what changed and deleted records held before, in one pass over the logs, if it is not much.

    `also` are other positions whose data is going to be asked for.
    """
    changed = spool.known_positions
    if work.field_signatures is not None and work.field_signatures.valid:
        # What changed in these is told by their signatures.
        changed = changed[~work.field_signatures.known(changed)]
    asked = [changed, work.gone, *([] if also is None else [also])]
    positions = distinct(np.concatenate(asked))
    if 0 < len(positions) <= PREFETCH:
        written = work.baseline.column_at("written_run", positions)
        work.previous.prefetch(work.baseline.key_signatures(positions), written)


def complete_renewed(work: Comparing, spool: Spool, renewed: Renewed, rules: ReadingRules) -> list[str]:
    """Sign the entries of which no record told by the write log; gives a warning of those that none knows."""
    open_entries = renewed.open_entries()
    prefetch_previous(work, spool, open_entries)
    renewed.complete(work.previous, open_entries, rules, work.pins)
    if not renewed.unknown:
        return []
    if renewed.unknown == 1:
        words = (
            "1 record that was not read or differs is in no write log, so whether it is the same under the new rule "
            "is not known; it is written when it is read"
        )
        return [words]
    words = (
        f"{renewed.unknown:,} records that were not read or differ are in no write log, so whether they are the same "
        "under the new rule is not known; they are written when they are read"
    )
    return [words]


def find_changes(work: Comparing, spool: Spool, read: Read) -> Found:
    """Write creates and updates; count the rest."""
    found = Found(duplicates=work.seen.dropped_duplicates)
    found.unchanged = int(np.count_nonzero(work.seen.implied))
    data_type = _whole(spool.data_type, work.fields)
    key_type = (
        pa.struct([data_type.field(name) for name in work.primary_key]) if spool.rows else pa.struct([])
    )
    schema = log_schema(key_type, data_type)
    contest = contest_of(read)
    extras: list[pa.RecordBatch] = []
    with LogWriter(work.folder / CREATES) as creates, LogWriter(work.folder / UPDATES) as updates:
        for rows in ahead(spool.ranges()):
            winners = _winners(work, rows, contest, found)
            # Updates, which are more work, are written while creates are made ready.
            for decision, writer in ((Decision.UPDATE, updates), (Decision.NEW, creates)):
                chosen = winners[decision]
                if len(chosen) == 0:
                    continue
                # They ascend: as many as there are rows are all of them.
                part = rows if len(chosen) == rows.num_rows else rows.take(pa.array(chosen))
                batch = _records(part, work, schema, decision is Decision.UPDATE)
                if decision is Decision.NEW:
                    batch = without_existing(work, batch, found, extras)
                digest_change(found.whole_digest, decision, batch)
                writer.write(batch)
        found.created, found.updated = creates.rows, updates.rows
    if extras:
        found.extra_entries = write_entries(work.folder / ENTRIES, extras)
    return found


def digest_change(digest: Any, decision: Decision, batch: pa.RecordBatch) -> None:
    """Take a batch of changes into a digest."""
    digest.update(bytes([decision]))
    digest.update(words(batch.column("primary_key_signature")).tobytes())
    digest.update(words(batch.column("data_signature")).tobytes())


def _whole(kind: pa.StructType, fields: Mapping[str, pa.DataType]) -> pa.StructType:
    """Give the type of whole records: with all fields ever known, not just those of the changed ones.

    A field that a changed record lacks is null, and must become so in the destination. Fields that
    never had a value have the null type, whatever a source calls them: a destination can then wait
    with the type of their columns until there is one.
    """
    spooled = {f.name: f.type for f in kind}
    types = {
        name: known if pa.types.is_null(known) else spooled.get(name, known) for name, known in fields.items()
    }
    return pa.struct(
        [
            pa.field(name, known)
            for name, known in {**types, **{n: t for n, t in spooled.items() if n not in types}}.items()
        ]
    )


def _winners(
    work: Comparing,
    rows: pa.RecordBatch,
    contest: Implied | None,
    found: Found,
) -> dict[Decision, npt.NDArray[np.int64]]:
    """Resolve the candidates of one range; give the winning rows by decision."""
    keys = words(rows.column("primary_key_signature"))
    match = rows.column("match").to_numpy()
    gone = None
    if work.marks:
        gone, match = (match & MARKED) != 0, match & ~np.uint8(MARKED)
    position = rows.column("position").to_numpy()
    if work.renewed is not None and not work.refresh:
        match = work.renewed.judge(match, position, rows.column("data_signature"))
    known = match != Match.NEW
    implied = np.zeros(len(match), dtype=np.bool_)
    implied[known] = work.seen.implied[position[known]]
    first = first_of_group(keys)
    candidates = Candidates(
        first=first,
        content=content_numbers(rows, first),
        same=match == Match.SAME,
        implied=implied,
        known=known,
        **ranks(work.strategy, rows, contest),
    )
    function = work.policies.on_conflict
    choose = chooser(function, rows, work.primary_key) if callable(function) else None
    resolution = resolve(candidates, work.strategy, choose)
    found.duplicates += resolution.duplicates
    if resolution.duplicates:
        _note_duplicates(work, rows, candidates, found)
    clashes = np.flatnonzero(resolution.conflict)
    if len(clashes):
        _note_conflicts(work, rows, (resolution.start[clashes], resolution.winner[clashes]), found)

    winner = resolution.winner
    chosen = np.where(winner >= 0, winner, resolution.start)
    same = np.where(winner == NO_WINNER, True, match[chosen] == Match.SAME)
    decision = decide(known=known[chosen], read=True, same=same)
    decision[winner == QUARANTINED] = Decision.NOTHING
    deleted = np.zeros(len(winner), dtype=np.bool_)
    if gone is not None:
        deleted = (winner >= 0) & gone[chosen]
        decision[deleted] = Decision.NOTHING
        found.marked.append(position[chosen[deleted & known[chosen]]])
    group_implied = implied[resolution.start]
    settled = (winner != QUARANTINED) & (decision == Decision.NOTHING) & ~deleted
    # A key with an implied candidate was counted as unchanged already.
    found.unchanged += int(np.count_nonzero(settled & ~group_implied))
    found.unchanged -= int(np.count_nonzero(~settled & group_implied))
    return {kind: chosen[decision == kind] for kind in (Decision.NEW, Decision.UPDATE)}


def _note_duplicates(work: Comparing, rows: pa.RecordBatch, candidates: Candidates, found: Found) -> None:
    """Keep samples of records that repeat another one of their key in all compared fields."""
    wanted = SAMPLES - len(found.duplicate_samples)
    if wanted <= 0:
        return
    # Only keys with several candidates have numbers.
    at = np.flatnonzero(candidates.content)
    group, content = np.cumsum(candidates.first)[at], candidates.content[at]
    order = np.lexsort((content, group))
    group, content = group[order], content[order]
    repeats = at[order[1:][(group[1:] == group[:-1]) & (content[1:] == content[:-1])]]
    unchanged = np.flatnonzero(candidates.same & candidates.implied)
    sample = np.unique(np.concatenate([repeats, unchanged]))[:wanted]
    data = rows.column("data")
    keys = pa.RecordBatch.from_arrays([data.field(n) for n in work.primary_key], list(work.primary_key))
    found.duplicate_samples += [
        f"key {text}: identical records" for text in key_texts(keys.take(pa.array(sample)).to_pylist())
    ]


def _note_conflicts(
    work: Comparing,
    rows: pa.RecordBatch,
    clashes: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    found: Found,
) -> None:
    start, _ = clashes
    found.conflicts += len(start)
    quarantined = work.strategy.kind == "quarantine"
    wanted = start if quarantined else start[: SAMPLES - len(found.conflict_samples)]
    keys = [
        {name: record[name] for name in work.primary_key}
        for record in rows.column("data").take(pa.array(wanted)).to_pylist()
    ]
    texts = [json.dumps(key, default=str) for key in keys]
    found.conflict_samples += [
        f"key {text}: several records with different data"
        for text in texts[: SAMPLES - len(found.conflict_samples)]
    ]
    if work.strategy.kind == "fail":
        raise PolicyViolation(
            f"the source has several records with different data for one key, such as {texts[0]}, and "
            "on_conflict is fail; mend the source, or set on_conflict to last, first, max:FIELD, min:FIELD "
            "or quarantine. Nothing was written"
        )
    if quarantined:
        signatures = rows.column("primary_key_signature").take(pa.array(start)).to_pylist()
        found.aside += [
            Aside(
                "several records of this key have different data (on_conflict = quarantine)", text, signature
            )
            for text, signature in zip(texts, signatures, strict=True)
        ]


def _records(rows: pa.RecordBatch, work: Comparing, schema: pa.Schema, update: bool) -> pa.RecordBatch:
    """Build write records from spooled rows."""
    data_type = schema.field("data").type
    spooled = rows.column("data")
    columns = {f.name: spooled.field(i) for i, f in enumerate(spooled.type)}
    data = as_struct(columns, data_type, rows.num_rows)
    key = as_struct(columns, schema.field("primary_key").type, rows.num_rows)
    changed = pa.nulls(rows.num_rows, pa.list_(pa.string()))
    if update:
        changed = which_changed(work, rows, data)
    return pa.RecordBatch.from_arrays(
        [rows.column("primary_key_signature"), rows.column("data_signature"), key, data, changed],
        schema=schema,
    )
