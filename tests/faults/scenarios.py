"""What is killed, how it recovers, and what must be true after it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

import rundiff
from rundiff.engine.log import CREATES, DELETES, UPDATES
from rundiff.engine.workspace import Workspace
from rundiff.errors import StateChanged
from rundiff.settings import Storage

Rows = dict[int, str]
Trouble = list[str]

FIRST: Rows = dict.fromkeys(range(1, 7), "a")
SECOND: Rows = {**dict.fromkeys(range(3, 7), "a"), 3: "b", 7: "a", 8: "a"}
"""Against FIRST: two deletions, one update, two inserts."""
FEW: Rows = dict.fromkeys(range(1, 31), "a")
FEWER: Rows = {**FEW, 1: "b", 31: "a"}
"""Two changes of thirty: the overlay stays."""
REFUSED = 99
"""An id that the table's CHECK constraint refuses."""


@dataclass(frozen=True)
class Scenario:
    """One act to be killed; all functions take the folder that everything is in."""

    prepare: Callable[[Path], Any]
    act: Callable[[Path], Any]
    recover: Callable[[Path], Any]
    check: Callable[[Path], Trouble]


def records(rows: Rows) -> list[dict[str, Any]]:
    return [{"id": key, "v": value} for key, value in rows.items()]


def sync(place: Path, rows: Rows, target: str = "sqlite", **options: Any) -> rundiff.Run:
    return a_sync(place, rows, target, **options).run()


def a_sync(place: Path, rows: Rows, target: str = "sqlite", **options: Any) -> rundiff.Sync:
    destination, into = {
        "sqlite": (f"sqlite:///{place}/d.db", "t"),
        "plain": (f"sqlite:///{place}/plain.db", "t"),
        "duckdb": (f"duckdb:///{place}/d.duckdb", "t"),
        "jsonl": (str(place / "out.jsonl"), None),
        "parquet": (str(place / "out.parquet"), None),
    }[target]
    given = {"batch_size": 2, **options}
    return rundiff.Sync(records(rows), "id", name="s", destination=destination, into=into, **given)


def watched_table(place: Path) -> None:
    """Make a table that logs each change of it, and refuses one id."""
    with contextlib.closing(sqlite3.connect(place / "d.db")) as database:
        database.executescript(
            f"CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, CHECK (id <> {REFUSED}));"
            "CREATE TABLE log (op TEXT, id INTEGER, v TEXT);"
            "CREATE TRIGGER i AFTER INSERT ON t BEGIN INSERT INTO log VALUES ('+', new.id, new.v); END;"
            "CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO log VALUES ('~', new.id, new.v); END;"
            "CREATE TRIGGER d AFTER DELETE ON t BEGIN INSERT INTO log VALUES ('-', old.id, old.v); END;"
        )


def changes_between(before: Rows, after: Rows) -> Counter[tuple[str, int, str]]:
    """What a table's log says of going from one state to another."""
    return Counter(
        [("-", key, value) for key, value in before.items() if key not in after]
        + [("~", key, value) for key, value in after.items() if key in before and before[key] != value]
        + [("+", key, value) for key, value in after.items() if key not in before]
    )


def sqlite_rows(path: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT id, v FROM t").fetchall()


def watched(place: Path, *states: Rows) -> Trouble:
    """The table is the last state, and each change on the way landed exactly once."""
    wrong = same("the table", sqlite_rows(place / "d.db"), states[-1])
    with contextlib.closing(sqlite3.connect(place / "d.db")) as database:
        log = Counter(database.execute("SELECT op, id, v FROM log").fetchall())
    expected: Counter[tuple[str, int, str]] = Counter()
    for before, after in zip(({}, *states[:-1]), states, strict=True):
        expected += changes_between(before, after)
    if log != expected:
        wrong.append(f"the table saw {log - expected} too much and {expected - log} too little")
    return wrong


def same(what: str, found: Iterable[tuple[Any, ...]], wanted: Rows) -> Trouble:
    got, want = sorted(found), sorted(wanted.items())
    return [] if got == want else [f"{what} holds {got}, not {want}"]


def duckdb_table(place: Path, wanted: Rows) -> Trouble:
    with duckdb.connect(str(place / "d.duckdb")) as database:
        return same("the table", database.execute("SELECT id, v FROM t").fetchall(), wanted)


def stream(place: Path) -> list[dict[str, Any]]:
    path = place / "out.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def parquet_stream(place: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted((place / "out.parquet").glob("run-*.parquet")):
        for row in pq.read_table(path).to_pylist():
            row["data"] = {name: row["data"][name] for name in ("id", "v")} if row["data"] else None
            found.append(row)
    return found


def replayed(changes: Iterable[Mapping[str, Any]], wanted: Rows) -> Trouble:
    """A stream brings each change once, and replaying it gives the source."""
    state: Rows = {}
    seen: Counter[tuple[int, int]] = Counter()
    wrong = []
    for change in changes:
        seen[change["run"], change["sequence"]] += 1
        key = change["primary_key"]["id"]
        if change["action"] == "delete":
            wrong += [] if state.pop(key, None) else [f"{key} is deleted and was not there"]
        else:
            if (change["action"] == "update") != (key in state):
                wrong.append(f"{change['action']} of {key}, but it was {'there' if key in state else 'gone'}")
            state[key] = change["data"]["v"]
    wrong += [f"run and sequence {place} came {times} times" for place, times in seen.items() if times > 1]
    return wrong + same("the replayed stream", state.items(), wanted)


def home_is_sound(place: Path, wanted: Rows) -> Trouble:
    """The write log replays to the source, nothing is unfinished, and no rubbish is left."""
    wrong: Trouble = []
    with Workspace(Storage(home=str(place / "home"))) as workspace:
        backends = workspace.backends()
        sync = backends.database.find("s")
        if sync is None:
            return ["the sync is gone"]
        wrong += [f"run {run.run} is {run.status}" for run in backends.database.unfinished(sync.sync_id)]
        state: Rows = {}
        logs = set()
        for run in reversed(backends.database.runs(sync.sync_id)):
            if run.sealed is None or run.manifest is None or "void" in run.details:
                continue
            folder = backends.home.log(sync.sync_id, run.run)
            logs.add(folder.name)
            refused = {
                f.primary_key_signature
                for f in backends.database.failures(sync.sync_id, run.run)
                if f.sequence > 0
            }
            for name in (DELETES, UPDATES, CREATES):
                if (folder / name).exists():
                    for record in pq.read_table(folder / name).to_pylist():
                        if record["primary_key_signature"] in refused:
                            continue
                        if name == DELETES:
                            wrong += (
                                []
                                if state.pop(record["primary_key"]["id"], None)
                                else ["a delete of nothing"]
                            )
                        else:
                            state[record["primary_key"]["id"]] = record["data"]["v"]
        wrong += same("the replayed write log", state.items(), wanted)
        home = backends.home.sync(sync.sync_id)
        left = [str(p.relative_to(home)) for p in home.glob("spool/*")]
        left += [p.name for p in (home / "log").glob("*") if p.name not in logs and not _voided(workspace, p)]
        left += [name for name in backends.store.names(sync.sync_id) if name.startswith("new/")]
        held = sync.held
        left += [
            str(p.relative_to(home)) for p in home.glob("held/*") if held is None or int(p.name) != held.run
        ]
        if left:
            wrong.append(f"rubbish is left in the home: {left}")
    return wrong


def _voided(workspace: Workspace, folder: Path) -> bool:
    database = workspace.backends().database
    sync = database.find("s")
    run = None if sync is None else database.run(sync.sync_id, int(folder.name))
    return run is not None and "void" in run.details


def settled(place: Path, rows: Rows, target: str = "sqlite", **options: Any) -> Trouble:
    """One more run of the same source has nothing to do."""
    result = sync(place, rows, target, **options)
    counts = result.counts
    if (counts.unchanged, counts.created, counts.updated, counts.deleted, counts.deletes_held) != (
        len(rows), 0, 0, 0, 0,
    ):  # fmt: skip
        return [f"a further run of the same source found {counts}"]
    return home_is_sound(place, rows)


def tried(place: Path, act: Callable[[], Any]) -> None:
    """Do what may be done already."""
    with contextlib.suppress(StateChanged):
        act()


# The scenarios


def two_runs(target: str, before: Rows, after: Rows, check: Callable[[Path], Trouble]) -> Scenario:
    def prepare(place: Path) -> None:
        if target == "sqlite":
            watched_table(place)
        if before:
            sync(place, before, target)

    def complete(place: Path) -> Trouble:
        return check(place) + settled(place, after, target) + check(place)

    return Scenario(
        prepare=prepare,
        act=lambda place: sync(place, after, target),
        recover=lambda place: sync(place, after, target) and None,
        check=complete,
    )


def refused_records() -> Scenario:
    after = {**SECOND, REFUSED: "a"}

    def prepare(place: Path) -> None:
        watched_table(place)
        sync(place, FIRST)

    def check(place: Path) -> Trouble:
        wrong = watched(place, FIRST, SECOND)
        result = sync(place, after)
        wrong += [] if result.counts.failed == 1 else [f"the refused record was not tried again: {result}"]
        with Workspace(Storage(home=str(place / "home"))) as workspace:
            database = workspace.backends().database
            sync_id = database.syncs()[0].sync_id
            entries = database.failures(sync_id)
            if len(entries) != 1 or entries[0].run != result.run:
                wrong.append(f"open in the quarantine: {entries}")
        return wrong + watched(place, FIRST, SECOND) + home_is_sound(place, SECOND)

    return Scenario(prepare, lambda p: sync(p, after), lambda p: sync(p, after) and None, check)


def held_deletions() -> Scenario:
    """The act is a run whose deletions are held; then they are approved."""

    def check(place: Path) -> Trouble:
        kept = {**FIRST, **SECOND}
        wrong = watched(place, FIRST, kept)
        result = sync(place, SECOND, max_deletes=1)
        wrong += [] if result.counts.deletes_held == 2 else [f"not held: {result}"]
        a_sync(place, SECOND).approve()
        return wrong + watched(place, FIRST, kept, SECOND) + settled(place, SECOND)

    def prepare(place: Path) -> None:
        watched_table(place)
        sync(place, FIRST)

    def act(place: Path) -> None:
        sync(place, SECOND, max_deletes=1)

    return Scenario(prepare, act, act, check)


def approved_deletions() -> Scenario:
    def prepare(place: Path) -> None:
        watched_table(place)
        sync(place, FIRST)
        sync(place, SECOND, max_deletes=1)

    def act(place: Path) -> None:
        a_sync(place, SECOND).approve()

    def check(place: Path) -> Trouble:
        return watched(place, FIRST, {**FIRST, **SECOND}, SECOND) + settled(place, SECOND)

    return Scenario(prepare, act, lambda p: tried(p, lambda: act(p)), check)


def approved_run() -> Scenario:
    limit = {"max_updates_percent": 10}

    def prepare(place: Path) -> None:
        watched_table(place)
        sync(place, FIRST)

    def hold(place: Path) -> None:
        if sync(place, SECOND, **limit).status != "held":
            raise AssertionError("the run was not held")

    def check(place: Path) -> Trouble:
        wrong = []
        if sqlite_rows(place / "d.db") == sorted(FIRST.items()):
            hold(place)
            a_sync(place, SECOND).approve()
        else:
            wrong.append("a held run was delivered")
        return wrong + watched(place, FIRST, SECOND) + settled(place, SECOND)

    return Scenario(prepare, hold, hold, check)


def approving_a_run() -> Scenario:
    def prepare(place: Path) -> None:
        watched_table(place)
        sync(place, FIRST)
        sync(place, SECOND, max_updates_percent=10)

    def act(place: Path) -> None:
        a_sync(place, SECOND).approve()

    def check(place: Path) -> Trouble:
        return watched(place, FIRST, SECOND) + settled(place, SECOND)

    return Scenario(prepare, act, lambda p: tried(p, lambda: act(p)), check)


def taken_by_the_caller() -> Scenario:
    """`rundiff.changes`: what a commit does not cover comes again, and nothing else does."""

    def taken(place: Path, rows: Rows) -> None:
        with (place / "taken.jsonl").open("a") as file:
            file.write(json.dumps(None) + "\n")
            for change in rundiff.changes(records(rows), primary_key="id", name="s", batch_size=2):
                told = [change.destination_action, change.primary_key["id"], (change.data or {}).get("v")]
                file.write(json.dumps(told) + "\n")
                file.flush()

    def check(place: Path) -> Trouble:
        tries: list[list[Any]] = []
        for line in (place / "taken.jsonl").read_text().splitlines():
            told = json.loads(line)
            if told is None:
                tries.append([])
            else:
                tries[-1].append(tuple(told))
        state: Rows = {}
        for calls in tries:
            for action, key, value in calls:
                if action == "delete":
                    state.pop(key, None)
                else:
                    state[key] = value
        wrong = same("what the caller holds", state.items(), SECOND)
        full = [calls for calls in tries[1:] if calls]
        wrong += [f"tries differ: {full}"] if any(calls != full[-1][: len(calls)] for calls in full) else []
        again = list(rundiff.changes(records(SECOND), primary_key="id", name="s"))
        return wrong + ([f"{again} come again"] if again else []) + home_is_sound(place, SECOND)

    return Scenario(lambda p: taken(p, FIRST), lambda p: taken(p, SECOND), lambda p: taken(p, SECOND), check)


def applied_plan() -> Scenario:
    def prepare(place: Path) -> None:
        watched_table(place)
        sync(place, FIRST)
        a_sync(place, SECOND).plan(place / "plan")

    def act(place: Path) -> None:
        a_sync(place, SECOND).apply(place / "plan")

    def check(place: Path) -> Trouble:
        return watched(place, FIRST, SECOND) + settled(place, SECOND)

    return Scenario(prepare, act, lambda p: tried(p, lambda: act(p)), check)


def full_refresh() -> Scenario:
    """A destination restored from an older copy becomes the source again."""

    def prepare(place: Path) -> None:
        sync(place, FIRST, "plain")
        copy = (place / "plain.db").read_bytes()
        sync(place, SECOND, "plain")
        (place / "plain.db").write_bytes(copy)

    def act(place: Path) -> None:
        sync(place, SECOND, "plain", full_refresh=True)

    def check(place: Path) -> Trouble:
        wrong = same("the table", sqlite_rows(place / "plain.db"), SECOND)
        result = sync(place, SECOND, "plain")
        return wrong + ([] if result.counts.written == 0 else [f"written again: {result}"])

    return Scenario(prepare, act, act, check)


def reset() -> Scenario:
    def prepare(place: Path) -> None:
        sync(place, FIRST, "plain")
        sync(place, {**FIRST, 1: "x"}, "plain")

    def act(place: Path) -> None:
        a_sync(place, FIRST, "plain").reset()

    def check(place: Path) -> Trouble:
        result = sync(place, FIRST, "plain")
        wrong = [] if result.baseline == "first" and (result.run or 0) > 2 else [f"not first: {result}"]
        return (
            wrong + same("the table", sqlite_rows(place / "plain.db"), FIRST) + settled(place, FIRST, "plain")
        )

    return Scenario(prepare, act, act, check)


def rolled_back() -> Scenario:
    def prepare(place: Path) -> None:
        sync(place, FIRST, "plain")
        copy = (place / "plain.db").read_bytes()
        sync(place, SECOND, "plain")
        (place / "plain.db").write_bytes(copy)

    def act(place: Path) -> None:
        with Workspace(Storage(home=str(place / "home"))) as workspace:
            workspace.rollback("s", 1)

    def check(place: Path) -> Trouble:
        result = sync(place, SECOND, "plain")
        counts = result.counts
        wrong = [] if (counts.deleted, counts.updated, counts.created) == (2, 1, 2) else [f"found {result}"]
        return (
            wrong
            + same("the table", sqlite_rows(place / "plain.db"), SECOND)
            + settled(place, SECOND, "plain")
        )

    return Scenario(prepare, act, act, check)


def rebuilt() -> Scenario:
    def prepare(place: Path) -> None:
        watched_table(place)
        sync(place, FIRST)
        sync(place, SECOND)
        for path in (place / "home" / "signatures").rglob("*.arrow"):
            path.unlink()

    def act(place: Path) -> None:
        with Workspace(Storage(home=str(place / "home"))) as workspace:
            workspace.rebuild("s")

    def check(place: Path) -> Trouble:
        return watched(place, FIRST, SECOND) + settled(place, SECOND)

    return Scenario(prepare, act, act, check)


SCENARIOS: dict[str, Scenario] = {
    "sqlite-first": two_runs("sqlite", {}, FIRST, lambda p: watched(p, FIRST)),
    "sqlite-second": two_runs("sqlite", FIRST, SECOND, lambda p: watched(p, FIRST, SECOND)),
    "sqlite-overlay": two_runs("sqlite", FEW, FEWER, lambda p: watched(p, FEW, FEWER)),
    "duckdb-second": two_runs("duckdb", FIRST, SECOND, lambda p: duckdb_table(p, SECOND)),
    "jsonl-first": two_runs("jsonl", {}, FIRST, lambda p: replayed(stream(p), FIRST)),
    "jsonl-second": two_runs("jsonl", FIRST, SECOND, lambda p: replayed(stream(p), SECOND)),
    "parquet-second": two_runs("parquet", FIRST, SECOND, lambda p: replayed(parquet_stream(p), SECOND)),
    "refused": refused_records(),
    "held-deletions": held_deletions(),
    "approved-deletions": approved_deletions(),
    "held-run": approved_run(),
    "approved-run": approving_a_run(),
    "changes": taken_by_the_caller(),
    "apply": applied_plan(),
    "full-refresh": full_refresh(),
    "reset": reset(),
    "rollback": rolled_back(),
    "rebuild": rebuilt(),
}
