"""Break deliveries into SQL databases off, let the next run finish them, and look whether anything is wrong.

The runs are made in forks of this process, which runs nothing itself, since threads don't survive a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection as Ends
from pathlib import Path
from typing import Any, Protocol, Self

import duckdb
import psycopg

import rundiff
import rundiff.cli
import rundiff.destinations.duckdb
import rundiff.destinations.mysql
import rundiff.destinations.postgresql
import rundiff.destinations.sqlite
import rundiff.engine.workspace
from rundiff.errors import RundiffError
from tests.servers.mariadb import MariadbServer
from tests.servers.postgresql import PostgresqlServer

__all__ = ["FAULTS", "MODES", "Trial", "open_place"]

MODES = ("mirror", "append", "history", "soft_delete")
FAULTS: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("process", "connection", "server"),
    "mariadb": ("process", "connection", "server"),
    "sqlite": ("process",),
    "duckdb": ("process",),
    "shared": ("process", "connection", "server"),
}
"""What can happen to a delivery: Rundiff is killed, the server drops all connections, the server is killed.

In `shared` one PostgreSQL holds the tables, the database of the syncs and the signature store.
"""
Rows = dict[int, str]
_LEASE = 2
_LATE = 0.006
"""Seconds that a fault may come late, in the middle of what the run does meanwhile."""


class Place(Protocol):
    """Where the tables are."""

    shares_state: bool
    """Whether the state of the syncs is kept there, too."""

    def create_database(self) -> str:
        """Make an empty database; gives its URL."""

    def ask(self, url: str, sql: str) -> list[tuple[Any, ...]]:
        """Query a database."""

    def strike(self, fault: str) -> None:
        """Do damage from the server's side."""


class _Server:
    """A server of its own."""

    def __init__(self, server: PostgresqlServer | MariadbServer, *, shares_state: bool = False) -> None:
        self._server, self.shares_state = server, shares_state

    def create_database(self) -> str:
        return self._server.create_database()

    def ask(self, url: str, sql: str) -> list[tuple[Any, ...]]:
        if isinstance(self._server, PostgresqlServer):
            with psycopg.connect(url) as connection:
                return connection.execute(sql.encode()).fetchall()
        opened = self._server.connect(url.rpartition("/")[2])
        with contextlib.closing(opened) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def strike(self, fault: str) -> None:
        if fault == "server":
            self._server.kill()
            self._server.start()
        else:
            self._server.drop_connections()


class _Folder:
    """Files of SQLite or DuckDB."""

    shares_state = False

    def __init__(self, scheme: str, folder: str) -> None:
        self._scheme, self._folder = scheme, Path(folder)

    def create_database(self) -> str:
        return f"{self._scheme}:///{self._folder / f'{uuid.uuid4().hex}.db'}"

    def ask(self, url: str, sql: str) -> list[tuple[Any, ...]]:
        path = url.partition("///")[2]
        if self._scheme == "sqlite":
            with contextlib.closing(sqlite3.connect(path)) as connection:
                return connection.execute(sql).fetchall()
        with duckdb.connect(path) as opened:
            # By way of Arrow: DuckDB wants a package more for times as tuples.
            return [tuple(row.values()) for row in opened.sql(sql).to_arrow_table().to_pylist()]

    def strike(self, fault: str) -> None:
        raise ValueError(f"{self._scheme} has no server for the fault {fault}")


@contextmanager
def open_place(kind: str, folder: str) -> Iterator[Place]:
    """Start what the tables are kept in, by its name in `FAULTS`."""
    if kind in ("postgresql", "shared"):
        with PostgresqlServer() as server:
            yield _Server(server, shares_state=kind == "shared")
    elif kind == "mariadb":
        with MariadbServer() as mariadb:
            yield _Server(mariadb)
    else:
        yield _Folder(kind, folder)


def _watch(step: Callable[[], None]) -> None:
    """Call `step` before and behind each exchange with a database, from now on in this process."""
    for kind in (
        rundiff.destinations.postgresql.PostgresqlConnection,
        rundiff.destinations.mysql.MysqlConnection,
        rundiff.destinations.sqlite.SqliteConnection,
        rundiff.destinations.duckdb.DuckdbConnection,
    ):
        original = kind._translated

        @contextmanager
        def translated(self: Any, *rest: Any, original: Any = original) -> Iterator[None]:
            with original(self, *rest):
                step()
                yield
                step()

        kind._translated = translated  # type: ignore[method-assign]
    execute = psycopg.Cursor.execute

    def executed(self: Any, *rest: Any, **more: Any) -> Any:
        step()
        cursor = execute(self, *rest, **more)
        step()
        return cursor

    # The database and the signature store have it as their way to the server.
    psycopg.Cursor.execute = executed  # type: ignore[method-assign]


class Trial:
    """One database, and one sync into it for each mode."""

    def __init__(self, place: Place, folder: str, chance: random.Random) -> None:
        self.place, self.folder, self.chance = place, folder, chance
        self.url = place.create_database()
        self.state: str | None = None
        if place.shares_state:
            # Who is killed leaves a lease that ends by itself.
            self.state = f"{place.create_database()}?lease_seconds={_LEASE}"
        self.sources: dict[str, Rows] = {mode: {} for mode in MODES}
        self.steps = dict.fromkeys(MODES, 0)
        self.met = 0
        """Runs that met a fault: a point has one or two."""

    @classmethod
    def begun(cls, place: Place, folder: str, chance: random.Random) -> Self:
        """Make the tables, and learn how many exchanges a run has."""
        trial = cls(place, folder, chance)
        trouble: list[str] = []
        for mode in MODES:
            for _ in range(2):  # the first run creates tables
                trial._change(mode)
                trouble += trial._settle(mode)
        if trouble:
            raise RuntimeError("; ".join(trouble))
        return trial

    def point(self, number: int, fault: str) -> list[str]:
        """Make a run that meets a fault, let the next one finish, and look what is wrong.

        At one point in four the run that follows meets a fault, too.
        """
        mode = MODES[number % len(MODES)]
        told: list[str] = []
        for _ in range(2 if self.chance.random() < 0.25 else 1):
            self._change(mode)
            told += self._disturbed(mode, fault)
        told += self._settle(mode)
        return [f"point {number}, {fault} in mode {mode}: {sentence}" for sentence in told]

    def _disturbed(self, mode: str, fault: str) -> list[str]:
        at = self.chance.randrange(1, self.steps[mode] + 1)
        late = self.chance.uniform(0.0, _LATE) if self.chance.random() < 0.4 else None

        def act(ends: Ends) -> tuple[list[str], int]:
            taken = 0

            def step() -> None:
                nonlocal taken
                taken += 1
                if taken == at:
                    ends.send("now")
                    if late is None:
                        ends.recv()

            _watch(step)
            try:
                self._sync(mode)
            except RundiffError as error:
                sentence = str(error)
                fine = "run again" in sentence.lower() and "\n" not in sentence
                return ([] if fine else [f"it says: {sentence}"]), taken
            return [], taken

        def strike(child: int) -> None:
            self.met += 1
            if late is not None:
                time.sleep(late)
            if fault == "process":
                os.kill(child, signal.SIGKILL)
            else:
                self.place.strike(fault)

        said, _ = _forked(act, strike)
        moment = f"at exchange {at}" if late is None else f"{late * 1000:.1f} ms after exchange {at}"
        return [f"{moment}: {sentence}" for sentence in said]

    def _sync(self, mode: str) -> None:
        """Make one run."""
        rows = [{"id": key, "v": value} for key, value in self.sources[mode].items()]
        rundiff.Sync(
            rows, "id", name=mode, destination=self.url, into=f"t_{mode}", mode=mode,  # type: ignore[arg-type]
            batch_size=2, home=f"{self.folder}/home", allow_empty=True, max_delete_percent=100.0,
            database=self.state, signatures=self.state and self.state.partition("?")[0], wait=True,
        ).run()  # fmt: skip

    def _change(self, mode: str) -> None:
        """Go on to the next state of a source."""
        rows = self.sources[mode]
        for key in self.chance.sample(range(1, 13), 5):
            if key in rows and self.chance.random() < 0.5:
                del rows[key]
            else:
                rows[key] = f"{self.chance.randrange(10**9)}"
        rows[0] = f"{self.chance.randrange(10**9)}"

    def _settle(self, mode: str) -> list[str]:
        """Make a run that nothing disturbs, count its exchanges, and compare."""

        def act(_: Ends) -> tuple[list[str], int]:
            taken = 0

            def step() -> None:
                nonlocal taken
                taken += 1

            _watch(step)
            self._sync(mode)
            return self._wrong(mode), taken

        said, steps = _forked(act, lambda _: None)
        self.steps[mode] = max(self.steps[mode], steps or 0)
        return said

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        return self.place.ask(self.url, sql)

    def _wrong(self, mode: str) -> list[str]:
        """Compare what the table holds with the source."""
        table, source = f"t_{mode}", self.sources[mode]
        if mode == "append":
            return self._wrong_log(table, source)
        where = {"soft_delete": " WHERE deleted_at IS NULL", "history": " WHERE is_current"}.get(mode, "")
        found = self._ask(f"SELECT id, v FROM {table}{where}")
        trouble = [] if sorted(found) == sorted(source.items()) else [f"the table holds {sorted(found)}"]
        if mode == "history":
            versions = defaultdict(list)
            for key, since, until in self._ask(
                f"SELECT id, valid_from, valid_to FROM {table} ORDER BY id, valid_from"
            ):
                versions[key].append((since, until))
            for key, spans in versions.items():
                pairs = itertools.pairwise(spans)
                if any(until is None or until > after for (_, until), (after, _) in pairs):
                    trouble.append(f"the versions of {key} overlap: {spans}")
        return trouble

    def _wrong_log(self, table: str, source: Rows) -> list[str]:
        """Replay an appended table: each change came once, in order, and they lead to the source."""
        columns = "_rundiff_run, _rundiff_sequence, _rundiff_action, id, v"
        found = self._ask(f"SELECT {columns} FROM {table} ORDER BY _rundiff_run, _rundiff_sequence")
        trouble = [] if len({row[:2] for row in found}) == len(found) else ["a change is there twice"]
        state: Rows = {}
        sequences = defaultdict(list)
        for run, sequence, action, key, value in found:
            sequences[run].append(sequence)
            if (action == "insert") == (key in state):
                trouble.append(
                    f"{action} of {key} in run {run}, which was {'there' if key in state else 'gone'}"
                )
            if action == "delete":
                state.pop(key, None)
            else:
                state[key] = value
        trouble += [
            f"run {run} has gaps" for run, all_ in sequences.items() if all_ != list(range(1, len(all_) + 1))
        ]
        return trouble if state == source else [*trouble, f"the changes lead to {state}, not to {source}"]


def _forked(
    act: Callable[[Ends], tuple[list[str], int]], struck: Callable[[int], None]
) -> tuple[list[str], int | None]:
    """Run in a fork, which may ask for `struck` once; give what it returned, or its traceback."""
    answer: tuple[list[str], int | None]
    modules: Sequence[str]
    ours, theirs = Pipe()
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            answer = act(theirs)
        except BaseException:  # noqa: BLE001 -- whatever it is, it has to be told
            answer = ([traceback.format_exc()], 0)
        theirs.send((answer, sorted(sys.modules)))
        os._exit(0)
    theirs.close()
    answer, modules = ([], None), ()  # killed: it says nothing
    with contextlib.suppress(EOFError, OSError), ours:
        got = ours.recv()
        if got == "now":
            struck(child)
            with contextlib.suppress(OSError):
                # A run that did not wait may have ended.
                ours.send("go")
            got = ours.recv()
        answer, modules = got
    os.waitpid(child, 0)
    for name in modules:
        # What one fork imported, the next ones find imported: most of a short run is imports.
        if name not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    return answer
