"""Break deliveries into database servers off, let the next run finish them, and look whether anything is wrong.

Run as `python -m tests.faults.sql_driver FOLDER SERVER FAULT POINTS [SEED]`: SERVER is `postgresql` or
`mariadb`; FAULT is `process` (kill -9 of Rundiff), `server` (kill -9 of the server) or `connection` (the
server drops all connections). Each point is one run, in one of the four modes in turn, that meets the
fault at a random one of its exchanges with the database, before or behind it. Prints one JSON object: the
points, how many of them met a fault, and what was wrong. Hundreds of points take some minutes.

The runs are made in forks of this process, which runs nothing itself, since threads don't survive a fork.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection as Ends
from typing import Any

import duckdb  # noqa: F401 -- imported before forking, as everything that a run needs
import psycopg

import rundiff
import rundiff.cli
import rundiff.destinations.mysql
import rundiff.destinations.postgresql
import rundiff.engine.workspace
from rundiff.errors import RundiffError
from tests.servers.mariadb import MariadbServer
from tests.servers.postgresql import PostgresqlServer

MODES = ("mirror", "append", "history", "soft_delete")
Rows = dict[int, str]
Step = Callable[[str], None]


def watch(step: Step) -> None:
    """Call `step` before and behind each exchange with a server, from now on in this process."""
    for kind in (
        rundiff.destinations.postgresql.PostgresqlConnection,
        rundiff.destinations.mysql.MysqlConnection,
    ):
        original = kind._translated

        @contextmanager
        def translated(self: Any, *rest: Any, original: Any = original) -> Iterator[None]:
            with original(self, *rest):
                step("before")
                yield
                step("behind")

        kind._translated = translated  # type: ignore[method-assign]


class Trial:
    """One server, one database on it, and one sync for each mode."""

    def __init__(self, server: PostgresqlServer | MariadbServer, folder: str, chance: random.Random) -> None:
        self.server, self.folder, self.chance = server, folder, chance
        self.url = server.create_database()
        self.sources: dict[str, Rows] = {mode: {} for mode in MODES}
        self.steps = dict.fromkeys(MODES, 0)
        self.met = 0

    def sync(self, mode: str) -> None:
        """Make one run."""
        rows = [{"id": key, "v": value} for key, value in self.sources[mode].items()]
        rundiff.Sync(
            rows, "id", name=mode, destination=self.url, into=f"t_{mode}", mode=mode,  # type: ignore[arg-type]
            batch_size=2, home=f"{self.folder}/home", allow_empty=True, max_delete_percent=100.0,
        ).run()  # fmt: skip

    def change(self, mode: str) -> None:
        """Go on to the next state of a source."""
        rows = self.sources[mode]
        for key in self.chance.sample(range(1, 13), 5):
            if key in rows and self.chance.random() < 0.5:
                del rows[key]
            else:
                rows[key] = f"{self.chance.randrange(10**9)}"
        rows[0] = f"{self.chance.randrange(10**9)}"

    def settle(self, mode: str) -> list[str]:
        """Make a run that nothing disturbs; count its exchanges."""
        said, steps = forked(lambda _: counted(lambda: self.sync(mode)), lambda _: None)
        self.steps[mode] = max(self.steps[mode], steps or 0)
        return said

    def point(self, number: int, fault: str) -> list[str]:
        """Make a run that meets a fault, let the next one finish, and look."""
        mode = MODES[number % len(MODES)]
        self.change(mode)
        at = self.chance.randrange(1, self.steps[mode] + 1)

        def act(ends: Ends) -> tuple[list[str], int]:
            taken = 0

            def step(_: str) -> None:
                nonlocal taken
                taken += 1
                if taken == at:
                    ends.send("now")
                    ends.recv()

            watch(step)
            try:
                self.sync(mode)
            except RundiffError as error:
                sentence = str(error)
                fine = "run again" in sentence.lower() and "\n" not in sentence
                return ([] if fine else [f"it says: {sentence}"]), taken
            return [], taken

        said, _ = forked(act, lambda child: self.strike(fault, child))
        said += self.settle(mode)
        return [
            f"{fault} at step {at} of a run in mode {mode} (point {number}): {x}"
            for x in said + self.wrong(mode)
        ]

    def strike(self, fault: str, child: int) -> None:
        """Do the damage, while the run waits."""
        self.met += 1
        if fault == "process":
            os.kill(child, signal.SIGKILL)
        elif fault == "server":
            self.server.kill()
            self.server.start()
        else:
            self.server.drop_connections()

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        if isinstance(self.server, PostgresqlServer):
            with psycopg.connect(self.url) as connection:
                return connection.execute(sql.encode()).fetchall()
        opened = self.server.connect(self.url.rpartition("/")[2])
        with contextlib.closing(opened) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def wrong(self, mode: str) -> list[str]:
        """Compare what the table holds with the source."""
        table, source = f"t_{mode}", self.sources[mode]
        if mode == "append":
            return self._wrong_log(table, source)
        where = {"soft_delete": " WHERE deleted_at IS NULL", "history": " WHERE is_current"}.get(mode, "")
        found = self.ask(f"SELECT id, v FROM {table}{where}")
        trouble = [] if sorted(found) == sorted(source.items()) else [f"the table holds {sorted(found)}"]
        if mode == "history":
            versions = defaultdict(list)
            for key, since, until in self.ask(
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
        found = self.ask(f"SELECT {columns} FROM {table} ORDER BY _rundiff_run, _rundiff_sequence")
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


def counted(act: Callable[[], None]) -> tuple[list[str], int]:
    """Do something, and count its exchanges with the server."""
    taken = 0

    def step(_: str) -> None:
        nonlocal taken
        taken += 1

    watch(step)
    act()
    return [], taken


def forked(
    act: Callable[[Ends], tuple[list[str], int]], struck: Callable[[int], None]
) -> tuple[list[str], int | None]:
    """Run in a fork, which may ask for `struck` once; give what it returned, or its traceback."""
    ours, theirs = Pipe()
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            theirs.send(act(theirs))
        except BaseException:  # noqa: BLE001 -- whatever it is, it has to be told
            theirs.send(([traceback.format_exc()], 0))
        os._exit(0)
    theirs.close()
    answer: tuple[list[str], int | None] = ([], None)  # killed: it says nothing
    with contextlib.suppress(EOFError, OSError), ours:
        got = ours.recv()
        if got == "now":
            struck(child)
            ours.send("go")
            got = ours.recv()
        answer = got
    os.waitpid(child, 0)
    return answer


def main(folder: str, kind: str, fault: str, points: int, seed: int) -> None:
    """Go through some points and tell of them."""
    with PostgresqlServer() if kind == "postgresql" else MariadbServer() as server:
        trial = Trial(server, folder, random.Random(seed))  # noqa: S311 -- chance that can be repeated
        trouble: list[str] = []
        for mode in MODES:
            for _ in range(2):  # the first one creates tables
                trial.change(mode)
                trouble += trial.settle(mode) + trial.wrong(mode)
        for number in range(points):
            trouble += trial.point(number, fault)
        told = {"points": points, "met": trial.met, "steps": trial.steps, "trouble": trouble}
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int((sys.argv[5:] or ["1"])[0]))
