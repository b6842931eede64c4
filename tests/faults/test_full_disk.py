"""A disk that is full fails the run in one sentence, moves nothing, and the next run is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rundiff.errors import RundiffError, StorageError
from tests.faults.full_disk import LIMITS
from tests.faults.worlds import World, rows


def test_whichever_file_finds_no_place(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.full_disk", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["limit"] for each in told] == LIMITS, done.stderr
    assert [each["wrong"] for each in told] == [[]] * len(LIMITS)
    errors = [each["error"] for each in told if each["error"] is not None]
    assert {each["name"] for each in told} == {"StorageError", "DestinationError", None}
    for error in errors:
        assert "\n" not in error
        assert any(way in error for way in ("run again", "check that its folder is writable"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_home_that_can_not_be_written(world: World) -> None:
    world.run(rows(1))
    world.home.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="check that its folder is writable"):
            world.run(rows(1, 2))
    finally:
        world.home.chmod(0o700)
    assert world.run(rows(1, 2)).counts.created == 1


def test_a_home_that_is_a_file(world: World) -> None:
    world.home.write_text("")
    with pytest.raises(StorageError, match="can't be opened"):
        world.run(rows(1))


def test_a_destination_that_is_read_only(world: World) -> None:
    world.run(rows(1))
    blocker = world.folder / "d.db-journal"
    blocker.mkdir()  # even the superuser can't write a journal where a folder is
    try:
        with pytest.raises(RundiffError) as caught:
            world.run(rows(1, 2))
        assert "d.db" in str(caught.value)
    finally:
        blocker.rmdir()
    assert world.table() == {1: "a"}
    assert world.run(rows(1, 2)).counts.created == 1
    assert world.table() == {1: "a", 2: "a"}
