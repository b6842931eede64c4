"""`rundiff doctor`: what is installed and reachable."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec
from msgspec.structs import asdict

from rundiff.cli.invocation import Invocation, common_options
from rundiff.cli.values import plural
from rundiff.errors import RundiffError
from rundiff.project import PROJECT_FILE

__all__ = ["Finding", "Health", "diagnose", "doctor_command"]

PACKAGES = ("pyarrow", "numpy", "duckdb", "msgspec", "click", "rich", "cbor2", "xxhash")
LITTLE_SPACE = 1 << 30
"""Bytes of free space under which a warning is due."""
DATABASE_FILE_SCHEMES = ("sqlite", "duckdb")


class Health(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was checked."""

    check: str
    health: Health
    says: str


@click.command("doctor", short_help="Check what is installed and reachable.")
@common_options()
@click.pass_obj
def doctor_command(invocation: Invocation) -> int:
    """Check what is installed and reachable; exits with 1 if something is broken. Changes nothing."""
    findings = list(diagnose(invocation))
    if invocation.as_json:
        invocation.json({**asdict(each), "says": invocation.masked(each.says)} for each in findings)
    else:
        _show(invocation, findings)
    return 1 if any(each.health is Health.BROKEN for each in findings) else 0


def _show(invocation: Invocation, findings: list[Finding]) -> None:
    from rich.text import Text

    from rundiff.cli.render_runs import grid

    styles = {Health.OK: "green", Health.WARNING: "yellow", Health.BROKEN: "red"}
    table = grid("check", "", "")
    table.show_header = False
    for each in findings:
        table.add_row(
            each.check, Text(each.health, style=styles[each.health]), Text(invocation.masked(each.says))
        )
    invocation.show([table])


def diagnose(invocation: Invocation) -> Iterator[Finding]:
    """Check everything; a check that fails never hides the ones after it."""
    yield Finding("python", Health.OK, f"{sys.version.split()[0]} on {sys.platform}")
    for package in PACKAGES:
        yield _package(package)
    yield _guarded("signer", _signer)
    yield _guarded("project file", lambda: _project(invocation))
    try:
        home = invocation.home_directory
    except RundiffError as error:
        yield Finding("home directory", Health.BROKEN, str(error))
        return
    yield _guarded("home directory", lambda: _writable(home))
    yield _guarded("file locks", lambda: _locks(home))
    yield _guarded("free space", lambda: _space(home))
    store = _guarded("signatures", lambda: _store(invocation, home))
    yield store
    if home.is_dir() or invocation.storage.database is not None:
        yield from _syncs(invocation, readable=store.health is not Health.BROKEN)


def _guarded(check: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except RundiffError as error:
        return Finding(check, Health.BROKEN, str(error))
    except OSError as error:
        return Finding(check, Health.BROKEN, f"{error.strerror or error}: {error.filename or 'no file'}")


def _package(name: str) -> Finding:
    try:
        return Finding(name, Health.OK, version(name))
    except PackageNotFoundError:
        return Finding(name, Health.BROKEN, f"not installed: pip install {name}")


def _signer() -> Finding:
    from rundiff.signing.choice import available_signers, signer_name

    name = signer_name()
    if name == "native":
        return Finding("signer", Health.OK, "native")
    why = (
        "RUNDIFF_NATIVE is 0"
        if "native" in available_signers()
        else "the native core is built at installation where a recent cargo is on the PATH"
    )
    return Finding("signer", Health.OK, f"{name}: the same signatures as the native one, more slowly; {why}")


def _project(invocation: Invocation) -> Finding:
    project = invocation.project
    if project.path is None:
        return Finding("project file", Health.OK, f"no {PROJECT_FILE} here")
    broken = []
    for name in project.syncs:
        try:
            project.settings(name)
        except RundiffError as error:
            broken.append(str(error))
    if broken:
        return Finding("project file", Health.BROKEN, " ".join(broken))
    return Finding("project file", Health.OK, f"{PROJECT_FILE} with {plural(len(project.syncs), 'sync')}")


def _existing(home: Path) -> Path:
    """Find the home directory, or the nearest directory above it that is there."""
    return next(path for path in (home.absolute(), *home.absolute().parents) if path.is_dir())


def _writable(home: Path) -> Finding:
    place = _existing(home)
    with tempfile.TemporaryFile(dir=place):
        pass
    if place == home.absolute():
        return Finding("home directory", Health.OK, f"{home}, writable")
    return Finding("home directory", Health.OK, f"{home}, made by the first sync")


def _locks(home: Path) -> Finding:
    """Hold a lock as a lease does, and see whether a second holder is refused."""
    try:
        import fcntl
    except ImportError:
        return Finding("file locks", Health.WARNING, "not checked on this system")
    with tempfile.NamedTemporaryFile(dir=_existing(home)) as first, Path(first.name).open("rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Finding("file locks", Health.OK, "work")
    return Finding(
        "file locks", Health.BROKEN, f"don't exclude one another at {home}: choose a local disk with --home"
    )


def _space(home: Path) -> Finding:
    free = shutil.disk_usage(_existing(home)).free
    says = f"{free / 1e9:.1f} GB"
    return Finding("free space", Health.OK if free >= LITTLE_SPACE else Health.WARNING, says)


def _store(invocation: Invocation, home: Path) -> Finding:
    """Reach the signature store."""
    from rundiff.stores.registry import open_store

    store = open_store(invocation.storage.signatures, home / "signatures", home / "cache")
    try:
        report = store.report()
    finally:
        store.close()
    says = ": ".join(part for part in (report.version, report.place) if part)
    if report.warnings:
        return Finding("signatures", Health.WARNING, " ".join([f"{says}.", *report.warnings]))
    return Finding("signatures", Health.OK, says)


def _syncs(invocation: Invocation, *, readable: bool) -> Iterator[Finding]:
    """Look into the database, and at each sync if its baseline is `readable`."""
    try:
        with invocation.workspace() as workspace:
            database = workspace.backends().database
            says = plural(len(database.syncs()), "sync")
            if invocation.storage.database is not None:
                says = f"{database.version}: {database.place}, {says}"
            views = workspace.syncs() if readable else []
    except (RundiffError, sqlite3.Error) as error:
        yield Finding("database", Health.BROKEN, str(error))
        return
    yield Finding("database", Health.OK, says)
    for view in views:
        path = destination_path(view.destination)
        if view.last_run is not None and view.records and path is not None and not path.exists():
            says = f"its destination is missing: {path}; restore it, or send everything with --full-refresh"
            yield Finding(f"sync {view.name}", Health.BROKEN, says)


def destination_path(destination: str) -> Path | None:
    """Give the file or folder that a destination's stored name stands for, or None where it is none."""
    parts = urlsplit(destination)
    if parts.scheme in DATABASE_FILE_SCHEMES:
        return Path(parts.path.removeprefix("/") if parts.path.startswith("//") else parts.path)
    if not parts.scheme and destination.endswith((".jsonl", ".csv", ".parquet")):
        return Path(destination)
    return None
