"""A process that delivers is killed at any moment: the table and its watermark always agree."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from rundiff.destinations import open_destination
from rundiff.destinations.contract import Destination, Position, Target
from rundiff.settings import DestinationOptions
from rundiff.testing.destinations import change_batch

TARGET = Target(sync_id="s", sync="people", primary_key=("id",))
BATCH = 200


def deliver_for_ever(url: str, token: int) -> None:
    """Insert the ids 1, 2, 3 and so on, from where the watermark stands."""
    target = replace(TARGET, token=token)
    destination = open_destination(DestinationOptions(url=url, into="people"))
    at = destination.position(target) or Position(run=1, sequence=0)
    destination.prepare(target, pa.schema([("id", pa.int64()), ("v", pa.int64())]))
    destination.claim(target, at)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        at = deliver_next(destination, target, at)


def deliver_next(destination: Destination, target: Target, at: Position) -> Position:
    first = at.sequence + 1
    rows = [{"id": first + n, "v": 1} for n in range(BATCH)]
    return destination.deliver(target, change_batch(rows, "insert", first=first), at)


def found(url: str, path: Path) -> tuple[int, int, int]:
    if url.startswith("sqlite"):
        connection = sqlite3.connect(path)
        [row] = connection.execute("SELECT count(*), coalesce(max(id), 0), coalesce(sum(v), 0) FROM people")
        connection.close()
    else:
        with duckdb.connect(str(path)) as held:
            [row] = held.execute(
                "SELECT count(*), coalesce(max(id), 0), coalesce(sum(v), 0) FROM people"
            ).fetchall()
    return row


@pytest.mark.parametrize("scheme", ["sqlite", "duckdb"])
def test_a_killed_delivery_leaves_whole_batches(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "people.db"
    url = f"{scheme}:///{path}"
    chance = random.Random(7)  # noqa: S311  # moments to kill at, no secrets
    reached = 0
    for token in range(1, 7):
        code = f"from tests.unit.destinations.test_killed import deliver_for_ever as d; d({url!r}, {token})"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, 0.4))
            worker.send_signal(signal.SIGKILL)
        destination = open_destination(DestinationOptions(url=url, into="people"))
        position = destination.position(TARGET)
        destination.close()
        assert position is not None
        assert position.sequence >= reached
        assert position.sequence % BATCH == 0
        reached = position.sequence
        assert found(url, path) == (reached, reached, reached)
    assert reached > 0
