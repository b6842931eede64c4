"""The first half of a run: read, compare, judge. Touches nothing but its spool folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
from msgspec.structs import replace

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.manifest import Manifest, Memory
from rundiff.compare.conflicts import parse_strategy
from rundiff.compare.guards import Verdict, doubt, judge
from rundiff.compare.seen import Seen, open_seen
from rundiff.destinations.contract import Destination, Target
from rundiff.engine.changeset import Aside, ChangeSet, Findings
from rundiff.engine.comparing import Comparing, Found, complete_renewed, find_changes, prefetch_previous
from rundiff.engine.deletions import Looked, find_deletions, keep_entries
from rundiff.engine.drift import Settled, renamed_by, rules_of_run, settle_rule
from rundiff.engine.fieldsignatures import regained, signatures_in_run
from rundiff.engine.figures import figures_of
from rundiff.engine.judging import (
    Course,
    memory_after,
    parting_of,
    pending_samples,
    reach_with_fields,
    watch_of,
)
from rundiff.engine.known import known_fields, known_pins, never_made
from rundiff.engine.log import DELETES
from rundiff.engine.lost import Lost, refusal
from rundiff.engine.previous import LogKeys, PreviousRecords, logs_of
from rundiff.engine.proving import incomplete_reasons, incomplete_words, odd_words
from rundiff.engine.reading import SAMPLES, Read, read_all
from rundiff.engine.refusing import refuse_guarded, refuse_unfit
from rundiff.engine.renaming import renames_now
from rundiff.engine.renewing import Renewed
from rundiff.engine.rules import ReadingRules
from rundiff.engine.scoping import cursor_value, reach_of, reads_beyond
from rundiff.engine.session import Backends
from rundiff.engine.spool import Spool
from rundiff.engine.views import Progress
from rundiff.errors import ConfigurationError, PolicyViolation
from rundiff.model import BaselineState, Scope
from rundiff.settings import SyncSettings
from rundiff.signing import signer_name
from rundiff.signing.rule import Rule
from rundiff.sources.contract import ReadRequest, Source

__all__ = ["Finder", "Started"]


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What a run starts from."""

    sync_id: str | None
    baseline: Baseline
    state: BaselineState
    lost: Lost | None = None
    manifest: str | None = None
    stale: pa.Table | None = None
    """At a full refresh: keys deleted before that a restored destination may hold again."""
    forget: tuple[str, ...] = ()
    """Syncs whose marks on the destination are to be taken away."""


class Finder(msgspec.Struct):
    """One reading and its comparison. After `find`, `looked` tells which baseline keys it judged."""

    backends: Backends
    settings: SyncSettings
    source: Source
    destination: Destination
    target: Target
    started: Started
    folder: Path
    seen: Seen | None = None
    looked: Looked | None = None
    course: Course | None = None

    def find(self) -> ChangeSet:
        """Read, compare, judge; leave a change set in the folder."""
        settings, started = self.settings, self.started
        baseline = started.baseline
        if started.state is BaselineState.LOST:
            self._refuse_lost()
        course = self._course()
        watch = watch_of(settings, course.reach)
        asked = ReadingRules.of(settings, self.backends.signing_key, watch)
        rules = rules_of_run(asked, settings, baseline.manifest, self.backends, course.reach.scope)
        former = rules.former if rules.former is not None and rules.former.twice else None
        signed = signatures_in_run(settings, baseline, self.folder, rules)
        if signed is not None and (former is not None or signed.lacking):
            rules = replace(rules, gaining=signed)
        renewed = (
            None if former is None else Renewed(baseline, self.folder, (former, rules.signing_key), signed)
        )
        self.seen = open_seen(baseline.positions, keep_all=rules.strategy.kind == "function")
        spool = Spool(self.folder)
        read = self._read(baseline, rules, spool, renewed)
        warnings = odd_words(read, watch, settings, baseline.manifest, started.lost)
        settled = settle_rule(read, baseline.manifest, settings, rules, warnings)
        self._say("sealing", read.records)
        reasons = incomplete_reasons(read, settings, self.source, baseline.manifest, course.reach.scope)
        if former is not None and not former.whole and renewed is not None and not renewed.changed:
            renewed = None
        base = regained(signed, baseline, self.folder) if renewed is None else None
        work = replace(
            self._work(course, (read, rules, renewed), settled.rule, absence=not reasons),
            field_signatures=signed,
            gained=signed.gained if signed is not None and base is None and renewed is None else None,
        )
        if renewed is None or former is None or not former.whole:
            prefetch_previous(work, spool)
        else:
            self._refuse_unsettled(renewed, reasons)
            warnings += complete_renewed(work, spool, renewed, rules)
        found = find_changes(work, spool, read)
        self._refuse_unfit(work, spool, settled)
        whole = work.absence and course.reach.scope is Scope.FULL
        find_deletions(work, found, started.stale if whole else None)
        figures = figures_of(course, work, read, found)
        verdict = judge(figures, settings.guards)
        refuse_guarded(settings, verdict, self.folder / DELETES)
        doubtful = doubt(figures, settings.guards) if work.absence else None
        pending = keep_entries(
            work,
            count=doubtful is None,
            repart=work.parting is not None and work.parting.anew,
        )
        if doubtful is not None and len(work.absent.pending):
            warnings.append(f"keys that were not read have no further miss: {doubtful}")
        self.looked = Looked(
            self.seen.read, work.absence if work.covered is None else work.covered & work.absence, renewed
        )
        self._clear_spool()
        findings = msgspec.structs.replace(
            self._findings((read, found), settled, reasons, verdict, warnings),
            renewed=base if renewed is None else renewed.write_base(self.folder),
            field_signatures=signed is not None,
            rekeyed=self._other_key(settled),
            scope=str(course.reach.scope),
            memory=memory_after(
                course, read, complete=not reasons, pending=pending, doubtful=doubtful is not None
            ),
            misses=pending,
            expires_at=None if verdict == Verdict() else course.began + course.approvable,
            approvable_hours=course.approvable.total_seconds() / 3600,
        )
        if pending:
            samples = {**findings.samples, "pending": pending_samples(work, count=doubtful is None)}
            findings = msgspec.structs.replace(findings, samples=samples)
        changes = ChangeSet(self.folder, findings)
        changes.save()
        return changes

    def _course(self) -> Course:
        if self.course is not None:
            return self.course
        manifest = self.started.baseline.manifest
        memory = Memory() if manifest is None else manifest.memory
        now = self.backends.database.now()
        reach = reach_with_fields(self.settings, reach_of(self.settings, memory, now))
        self.course = Course(settings=self.settings, reach=reach, memory=memory, began=now)
        return self.course

    def _work(
        self, course: Course, reading: tuple[Read, ReadingRules, Renewed | None], rule: Rule, *, absence: bool
    ) -> Comparing:
        read, rules, renewed = reading
        settings, started, baseline = self.settings, self.started, self.started.baseline
        manifest, sync_id = baseline.manifest, started.sync_id
        over = renamed_by(read, rules.former)
        previous = PreviousRecords(
            logs_of(self.backends.log, sync_id) if sync_id else lambda _run, _keys: self.folder / "none",
            # That of the baseline, by whose signatures records are asked for.
            LogKeys(
                rules.signing_key if rules.former is None else rules.former.key,
                0 if manifest is None else manifest.rekeyed_run,
                renames_now(manifest, over),
            ),
            deletes=started.stale is not None,
        )
        retypes = {} if rules.former is None else rules.former.retypes(read.pins)
        assert self.seen is not None  # noqa: S101 -- set by the only caller
        found = started.state is BaselineState.FOUND
        return Comparing(
            folder=self.folder,
            primary_key=settings.primary_key,
            compared=(
                tuple(dict.fromkeys([*rule.fields, *_compared_before(manifest, rules)])),
                rules.preparation,
            ),
            fields=known_fields(
                read, {} if manifest is None else manifest.pins, {*over, *never_made(manifest, over)}
            ),
            baseline=baseline,
            seen=self.seen,
            previous=previous,
            policies=settings.policies,
            strategy=parse_strategy(settings.policies.on_conflict),
            existing=self._existing if started.state is BaselineState.FIRST else None,
            assume=started.state is BaselineState.LOST and settings.policies.on_lost_baseline == "rebaseline",
            parting=parting_of(
                course,
                baseline,
                (read, previous),
                rules.signing_key,
                rekeyed=renewed is not None and renewed.rekeyed,
                retypes=retypes,
            ),
            renewed=renewed,
            pins={**({} if manifest is None else manifest.pins), **read.pins},
            refresh=settings.full_refresh,
            absence=absence and found and course.reach.scope is not Scope.INCREMENTAL,
            marks=settings.policies.deleted_when is not None,
        )

    def _other_key(self, settled: Settled) -> bool:
        """Say whether earlier write logs may be under another signing key than this run's."""
        manifest = self.started.baseline.manifest
        if manifest is None:
            return self.started.state is BaselineState.LOST
        return manifest.signing_key_id != settled.rule.signing_key_id

    def _refuse_unsettled(self, renewed: Renewed, reasons: Sequence[str]) -> None:
        """Keep what was set aside from being known by a signature that no longer counts."""
        sync_id = self.started.sync_id
        if not renewed.rekeyed or not reasons or sync_id is None:
            return
        if self.backends.database.failures(sync_id):
            raise PolicyViolation(
                f"sync {self.settings.name}: the reading was not complete ({'; '.join(reasons)}), so the signing key "
                "can't be rotated while records are set aside. Nothing was written. Read the source completely, or go "
                "on with the former key as RUNDIFF_SIGNING_KEY until then"
            )

    def _read(
        self, baseline: Baseline, rules: ReadingRules, spool: Spool, renewed: Renewed | None = None
    ) -> Read:
        manifest, course = baseline.manifest, self._course()
        reach, incremental = course.reach, course.reach.scope is Scope.INCREMENTAL
        former, options = rules.former, self.settings.reading
        if former is not None and not former.twice and former.retyped:
            # What is read is compared under the former types.
            types = {name: pin for name, pin in options.types.items() if name not in former.retyped}
            options = msgspec.structs.replace(options, types=types)
        sync_id = self.started.sync_id
        aside = self.backends.database.failures(sync_id) if incremental and sync_id else ()
        request = ReadRequest(
            options=options,
            primary_key=self.settings.primary_key,
            pins=None if manifest is None else known_pins(manifest, reach.scope),
            ended_with_newline=None if manifest is None else manifest.ends_with_newline,
            newlines={} if manifest is None else manifest.newlines,
            scope=reach.scope,
            partitions=reach.named,
            cursor=cursor_value(course.memory, self.settings.scoping.cursor) if incremental else None,
            cursor_field=self.settings.scoping.cursor if incremental else None,
            whole=self.settings.full_refresh or reads_beyond(self.started.state, reach.scope, aside),
        )
        assert self.seen is not None  # noqa: S101 -- set by the only caller
        last = 0.0

        def hook(progress: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            if self.backends.progress is not None and now - last > 0.1:
                last = now
                self.backends.progress(progress)

        with self.source.open(request) as reading, spool:
            read = read_all(reading, rules, baseline, (self.seen, spool), hook, renewed)
        if read.invalid_keys and self.settings.policies.on_invalid_key == "fail":
            raise PolicyViolation(
                f"sync {self.settings.name}: {read.invalid_keys:,} records have no valid key, such as "
                f"{read.samples['invalid_keys'][0]}, and on_invalid_key is fail. Nothing was written"
            )
        return read

    def _refuse_unfit(self, work: Comparing, spool: Spool, settled: Settled) -> None:
        """Refuse what the destination can't take before anything is written, and not in the middle of a delivery."""
        known = work.fields
        fields = (
            {f.name: f.type for f in spool.data_type if not pa.types.is_null(known[f.name])}
            if spool.rows
            else None
        )
        refuse_unfit(self.destination, self.target, settled.renamed, fields)

    def _refuse_lost(self) -> None:
        name = self.settings.name
        policy = self.settings.policies.on_lost_baseline
        if policy == "fail":
            raise refusal(name, self.started.lost, self.destination, known=self.started.manifest is not None)
        if policy == "resend" and not self.destination.capabilities.upserts:
            raise ConfigurationError(
                f"sync {name}: on_lost_baseline = resend needs a destination that can take a record twice, and "
                f"{self.destination.identity} can't; use rebaseline"
            )

    def _existing(self, keys: pa.RecordBatch) -> pa.BooleanArray:
        return self.destination.existing_keys(self.target, keys)

    def _findings(
        self,
        results: tuple[Read, Found],
        settled: Settled,
        reasons: Sequence[str],
        verdict: Verdict,
        warnings: list[str],
    ) -> Findings:
        read, found = results
        settings, started = self.settings, self.started
        manifest = started.baseline.manifest
        if found.existing and settings.policies.on_existing == "overwrite":
            warnings.append(f"{found.existing:,} keys were in the destination already and are overwritten")
        elif found.existing:
            warnings.append(
                f"{found.existing:,} keys were in the destination already and are kept as they are"
            )
        warnings += incomplete_words(reasons, started.state)
        before = {} if manifest is None else known_pins(manifest, self._course().reach.scope)
        # Pins that records did not fit, such as a mistaken --types, are not to stick.
        pins = {**read.pins, **before} if read.unreadable else {**before, **read.pins}
        pins.update({name: read.pins[name] for name in settled.retyped if name in read.pins})
        gone = {*settled.waiting, *settled.renamed, *never_made(manifest, settled.renamed)}
        pins = {name: pin for name, pin in pins.items() if name not in gone}
        aside = list(found.aside)
        aside += [
            Aside("the record has no valid key (on_invalid_key = quarantine)", text) for text in read.invalid
        ]
        samples = {kind: tuple(texts) for kind, texts in read.samples.items() if texts}
        if found.conflict_samples:
            samples["conflicts"] = tuple(found.conflict_samples[:SAMPLES])
        if found.duplicate_samples:
            samples["duplicates"] = (*samples.get("duplicates", ()), *found.duplicate_samples)[:SAMPLES]
        return Findings(
            sync_id=started.sync_id,
            name=settings.name,
            source=self.backends.home.relative(self.source.location),
            primary_key=settings.primary_key,
            destination=self.destination.identity,
            new_action=str(self.destination.capabilities.new_action),
            manifest=started.manifest,
            baseline=str(started.state),
            baseline_records=started.baseline.live,
            fields=settled.rule.fields,
            form=settled.rule.form,
            left_out=settled.left_out,
            accepted={} if self._course().reach.scope is Scope.FULL else None,
            renamed=settled.renamed,
            drift=tuple(read.misfits),
            pins=pins,
            complete=not reasons,
            reasons=tuple(reasons),
            ends_with_newline=read.end.ends_with_newline,
            newlines=dict(read.end.newlines),
            signing_key_id=settled.rule.signing_key_id,
            counts={
                "records_read": read.records,
                "unchanged": found.unchanged,
                "created": found.created,
                "updated": found.updated,
                "deleted": found.deleted,
                "duplicates": found.duplicates,
                "conflicts": found.conflicts,
                "invalid_keys": read.invalid_keys,
                "unreadable": read.unreadable,
            },
            samples=samples,
            warnings=tuple(warnings),
            hold_deletions=verdict.hold_deletions,
            hold_run=verdict.hold_run,
            digest=(found.whole_digest if verdict.hold_run else found.digest).hexdigest(),
            extra_entries=found.extra_entries,
            repeated=found.repeated,
            aside=tuple(aside),
            existing=found.existing,
            signer=signer_name(),
        )

    def _clear_spool(self) -> None:
        for path in self.folder.glob("spool-*.arrow"):
            path.unlink()

    def _say(self, phase: str, done: int) -> None:
        if self.backends.progress is not None:
            self.backends.progress(Progress(phase=phase, done=done))


def _compared_before(manifest: Manifest | None, rules: ReadingRules) -> tuple[str, ...]:
    """Give the fields that were compared, or would be by now: the source may have lost them."""
    return () if manifest is None else (*manifest.fields, *rules.compared(list(manifest.pins)))
