"""A process that delivers is killed at any moment: the table and its watermark always agree."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from rundiff.destinations import open_destination
from rundiff.settings import DestinationOptions
from tests.unit.destinations.workers import BATCH, TARGET


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
        code = f"from tests.unit.destinations.workers import deliver_for_ever as d; d({url!r}, {token})"
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
