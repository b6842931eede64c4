"""A run crashes at each of its durable steps; the next one makes everything right.

After every crash and recovery the destination equals the source, the write log replays to it, no change
landed twice (a table with triggers tells; streams by run and sequence), and no rubbish is left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.by_others import ALL

GROUPS = [
    ["sqlite-first", "sqlite-second", "sqlite-overlay", "refused"],
    ["duckdb-second"],
    ["jsonl-first", "jsonl-second", "parquet-second", "changes"],
    ["held-deletions", "approved-deletions", "held-run", "approved-run", "apply"],
    ["full-refresh", "reset", "rollback", "rebuild", "adopted", "repaired"],
]
FEWEST = {"reset": 7, "rollback": 6}
"""Crashes that a scenario must have come to; 15 for the others. Guards against counting nothing."""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: a thousand crashes need no real disk."""
    above = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of our own below
    folder = Path(tempfile.mkdtemp(prefix="rundiff-", dir=above))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_every_crash_is_recovered_from(names: list[str], memory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.driver", str(memory), *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["scenario"] for each in told] == names, done.stderr
    for each in told:
        assert each["trouble"] == []
        assert each["crashes"] >= FEWEST.get(each["scenario"], 15)


def test_all_scenarios_are_run() -> None:
    assert sorted(name for group in GROUPS for name in group) == sorted(ALL)
