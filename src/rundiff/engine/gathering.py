"""Put the shares of a joined run together, as if one process had read its batches one after the other.

One thing takes care. A record that equals the baseline's is not kept by its batch, which does not know that
another batch, earlier in order, has other data for the key. One process would have kept it, to take part in
the contest of the key's records; such records are made anew here, from the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.columns import unify_types
from rundiff.compare.seen import PythonSeen
from rundiff.engine.drift import refuse_two_rules
from rundiff.engine.finding import Finder
from rundiff.engine.reading import Read
from rundiff.engine.renewing import Renewed
from rundiff.engine.rules import ReadingRules
from rundiff.engine.shares import Share, open_share, read_of
from rundiff.engine.spool import Spool, spool_batch
from rundiff.errors import ConfigurationError, StateChanged
from rundiff.model import Match
from rundiff.sources.contract import ReadEnd, Reading, ReadRequest
from rundiff.sources.pins import arrow_type_of, pin_of
from rundiff.sources.rows import wider_pin

__all__ = ["WORKERS", "GatheringFinder", "SharesSource"]

WORKERS = "workers"
"""The location of a source that several workers read."""
Ints = npt.NDArray[np.int64]


class SharesSource(msgspec.Struct, frozen=True):
    """The batches of a joined run, in order: each with the file of its share."""

    shares: Sequence[tuple[str, Path]]
    announced: bool
    """Whether it was said which batches there are, or how many: else nothing proves that they are all."""
    location: str = WORKERS
    may_delete_without_count: bool = True

    @contextmanager
    def open(self, request: ReadRequest) -> Iterator[Reading]:  # noqa: ARG002 -- the contract's signature
        """Shares were read already."""
        raise ConfigurationError("the batches of a run of several workers can't be read a second time")
        yield  # makes it a generator, which the contract wants


class GatheringFinder(Finder):
    """A finder whose reading was done by several workers."""

    def _read(
        self, baseline: Baseline, rules: ReadingRules, spool: Spool, renewed: Renewed | None = None
    ) -> Read:
        source = self.source
        assert isinstance(source, SharesSource)  # noqa: S101 -- made for it
        if renewed is not None:
            refuse_two_rules(self.settings, rules)
        if rules.watch is not None:
            raise ConfigurationError(
                f"sync {self.settings.name}: deleted_when, sentinel, cursor, and partition_by without partitions need "
                "one reader; a run of several workers can't have them yet. Leave them out, or read in one process"
            )
        gathering = _Gathering(baseline, rules, spool)
        manifest = None if baseline.manifest is None else baseline.manifest.name
        for batch, path in source.shares:
            share = open_share(path, batch)
            if share.header.manifest != manifest or share.header.positions != baseline.positions:
                raise StateChanged(
                    f"sync {self.settings.name}: batch {batch} was compared with another baseline than the current "
                    "one. Nothing was written. Give the run up and begin it anew"
                )
            gathering.add(batch, share)
        read = gathering.whole
        # As they are known to one process that reads on: those of the baseline, then new ones as they stand.
        before = {} if baseline.manifest is None else baseline.manifest.pins
        read.pins = {name: read.pins[name] for name in {**before, **read.fields} if name in read.pins}
        if not source.announced and self.settings.reading.expected_rows is None:
            reason = (
                "nobody said which batches there are; batches= or expected= would prove that they are all"
            )
            read.end = ReadEnd(incomplete=(*read.end.incomplete, reason))
        self.seen = gathering.seen
        return read


class _Gathering:
    """Takes shares in order."""

    def __init__(self, baseline: Baseline, rules: ReadingRules, spool: Spool) -> None:
        self._baseline = baseline
        self._field = rules.strategy.field if rules.strategy.kind in ("max", "min") else None
        self._spool = spool
        self._changed = np.zeros(baseline.positions, dtype=np.bool_)
        self._order = 0
        self.seen = PythonSeen(baseline.positions)
        self.whole = Read()

    def add(self, batch: str, share: Share) -> None:
        """Take the next one."""
        self._count(read_of(share, batch))
        implied, dropped = share.implied.copy(), share.header.dropped_duplicates
        late = np.flatnonzero(implied & self._changed)
        contest = share.contest
        if len(late):
            implied[late] = False
            rows = self._same_again(late, contest)
            # All of them take part now; those that repeat others are counted there.
            dropped -= rows - len(late)
        if contest is not None:
            on_time = implied[contest[0]]
            self.whole.contest.positions.append(contest[0][on_time])
            self.whole.contest.values.append(contest[1].filter(pa.array(on_time)))
        self.seen.dropped_duplicates += dropped + int(np.count_nonzero(self.seen.implied & implied))
        self.seen.implied |= implied
        self.seen.read |= share.read
        self._spool_rows(share)
        self._order += share.header.records + 1

    def _spool_rows(self, share: Share) -> None:
        for rows in share.rows():
            match = rows.column("match").to_numpy()
            self._changed[rows.column("position").to_numpy()[match == Match.CHANGED]] = True
            at = rows.schema.get_field_index("order")
            order = pa.array(rows.column(at).to_numpy() + self._order + 1)
            self._spool.add(rows.set_column(at, rows.schema.field(at), order))

    def _count(self, read: Read) -> None:
        whole = self.whole
        whole.records += read.records
        whole.invalid_keys += read.invalid_keys
        whole.unreadable += read.unreadable
        whole.fields.update(read.fields)
        whole.invalid += read.invalid
        whole.end = ReadEnd(incomplete=(*whole.end.incomplete, *read.end.incomplete))
        for kind, texts in read.samples.items():
            whole.note(kind, texts)
        for name, pin in read.pins.items():
            known = whole.pins.get(name, pin)
            whole.pins[name] = known if known == pin else _pin_of_both(known, pin)

    def _same_again(self, late: Ints, contest: tuple[Ints, pa.Array] | None) -> int:
        """Spool unchanged records of keys that an earlier batch has changed; gives their number.

        They stand before all rows of their batch, whose reading kept those that came after another change.
        """
        known = self._baseline.take(late).to_batches()[0]
        keys, data = known.column("primary_key_signature"), known.column("data_signature")
        _, position = self._baseline.lookup.probe(keys, data)
        key = known.column("primary_key")
        columns = {member.name: key.field(index) for index, member in enumerate(key.type)}
        if contest is not None and self._field is not None:
            wanted = np.isin(contest[0], late)
            order = np.argsort(position)
            rows = order[np.searchsorted(position, contest[0][wanted], sorter=order)]
            keys, data = keys.take(pa.array(rows)), data.take(pa.array(rows))
            columns = {name: column.take(pa.array(rows)) for name, column in columns.items()}
            columns[self._field] = contest[1].filter(pa.array(wanted))
            position = position[rows]
        count = len(keys)
        meta = [
            keys,
            data,
            pa.array(np.full(count, self._order, dtype=np.int64)),
            pa.array(np.full(count, Match.SAME, dtype=np.uint8)),
            pa.array(position),
        ]
        records = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
        self._spool.add(spool_batch(meta, records))
        return count


def _pin_of_both(left: str, right: str) -> str:
    """Give the pin that keeps the values of two batches, which did not know of each other."""
    types = arrow_type_of(left), arrow_type_of(right)
    if pa.types.is_nested(types[0]) or pa.types.is_nested(types[1]):
        return pin_of(unify_types(*types)) or "mixed"
    wider = wider_pin(left, right)
    return wider if wider != "mixed" else wider_pin(right, left)
