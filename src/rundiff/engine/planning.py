"""Plans: a change set without a run. Making one takes no lease and changes no state."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from rundiff.database.contract import StoredSync
from rundiff.destinations.contract import Destination, Target
from rundiff.engine.changeset import ChangeSet, Findings
from rundiff.engine.finding import Finder
from rundiff.engine.inspect import plan_sample
from rundiff.engine.report import planned_result
from rundiff.engine.session import Backends, refuse_other, store_destination
from rundiff.engine.starting import start
from rundiff.engine.views import Plan
from rundiff.errors import ConfigurationError, StateChanged, StorageError
from rundiff.settings import DestinationOptions, SyncSettings
from rundiff.sources import open_source

__all__ = ["preview", "refuse_other_plan", "refuse_unfinished", "unpack"]

_PLAN = "plan.json"
_KIND = "rundiff plan 1"


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = _KIND
    name: str
    primary_key: tuple[str, ...]
    url: str | None
    into: str | None
    shared_table: bool
    mode: Literal["mirror", "soft_delete", "append", "history"] = "mirror"
    batch_size: int
    particular: dict[str, Any] = {}


def preview(backends: Backends, settings: SyncSettings, destination: Destination, out: Path | None) -> Plan:
    """Read and compare, keep nothing but the file `out`."""
    began = time.monotonic()
    source = open_source(settings.source, settings.reading)
    sync = backends.database.find(settings.name)
    refuse_other(backends, settings, destination, source.location)
    target = Target(
        sync_id="" if sync is None else sync.sync_id, sync=settings.name, primary_key=settings.primary_key
    )
    above = Path(mkdtemp(prefix="plan-", dir=backends.home.root))
    try:
        folder = above / "changes"
        folder.mkdir()
        if sync is not None:
            refuse_unfinished(backends, sync)
        started = start(backends, settings, (destination, target), sync)
        changes = Finder(
            backends=backends,
            settings=settings,
            source=source,
            destination=destination,
            target=target,
            started=started,
            folder=folder,
        ).find()
        findings = changes.findings
        holds = [reason for reason in (findings.hold_run, findings.hold_deletions) if reason is not None]
        if out is not None:
            _pack(changes, settings, destination, out)
        return Plan(
            result=replace(planned_result(findings, time.monotonic() - began)),
            sample=plan_sample(backends, changes, sync),
            path=None if out is None else str(out),
            holds=holds,
        )
    finally:
        destination.close()
        shutil.rmtree(above, ignore_errors=True)


def refuse_unfinished(backends: Backends, sync: StoredSync) -> None:
    """Refuse to look at a destination that a run was cut off delivering to; raises `StateChanged`."""
    delivering = [run.run for run in backends.database.unfinished(sync.sync_id) if run.status == "delivering"]
    if delivering:
        raise StateChanged(
            f"sync {sync.name}: run {delivering[0]} was cut off while delivering, so what the destination holds "
            "is not settled; `rundiff sync` finishes that run first"
        )


def _pack(changes: ChangeSet, settings: SyncSettings, destination: Destination, out: Path) -> None:
    stored = store_destination(settings.destination, destination.identity)
    header = _Header(
        name=settings.name,
        primary_key=settings.primary_key,
        url=stored.url,
        into=stored.into,
        shared_table=settings.destination.shared_table,
        mode=settings.destination.mode,
        batch_size=settings.batch_size,
        particular=stored.particular,
    )
    temporary = out.with_name(f".{out.name}.{os.getpid()}.new")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_PLAN, msgspec.json.encode(header))
        for path in sorted(changes.folder.iterdir()):
            archive.write(path, path.name)
    os.replace(temporary, out)


def refuse_other_plan(findings: Findings, settings: SyncSettings, destination: Destination) -> None:
    """Refuse to deliver a plan as another sync, or to another destination, than it was made for."""
    if (findings.name, findings.primary_key) != (settings.name, settings.primary_key):
        raise ConfigurationError(
            f"the plan was made for sync {findings.name} with the primary key {', '.join(findings.primary_key)}, "
            f"not for sync {settings.name} with {', '.join(settings.primary_key)}; apply it as that sync"
        )
    if findings.destination != destination.identity:
        raise ConfigurationError(
            f"the plan was made for {findings.destination}, not for {destination.identity}; make it anew"
        )


def unpack(path: Path, folder: Path) -> tuple[ChangeSet, SyncSettings]:
    """Read a plan's file; raises `ConfigurationError` if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            header = msgspec.json.decode(archive.read(_PLAN), type=_Header)
            names: Sequence[str] = [name for name in archive.namelist() if name != _PLAN and "/" not in name]
            for name in names:
                archive.extract(name, folder)
        changes = ChangeSet.load(folder)
    except (zipfile.BadZipFile, KeyError, msgspec.DecodeError, OSError, StorageError) as error:
        raise ConfigurationError(f"{path} is not a plan; `rundiff plan … --out {path}` makes one") from error
    if header.kind != _KIND:
        raise ConfigurationError(f"{path} is a plan of another version of Rundiff; make it anew")
    destination = DestinationOptions(
        url=header.url, into=header.into, shared_table=header.shared_table, mode=header.mode
    )
    settings = SyncSettings(
        name=header.name,
        source=None,
        primary_key=header.primary_key,
        destination=msgspec.structs.replace(destination, **header.particular),
        batch_size=header.batch_size,
    )
    return changes, settings
