"""Two runs of one sync: one waits or is refused, and one that lost its turn writes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rundiff
from rundiff.cli import main
from rundiff.errors import SyncBusy
from tests.faults.worlds import World, rows

STOPPED = """
import os, signal, sys
from pathlib import Path
from rundiff.destinations.sql import SqlDestination
from rundiff.errors import RundiffError
from tests.faults.worlds import World, rows

deliver = SqlDestination.deliver
calls = []

def stopping(self, *arguments):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    return deliver(self, *arguments)

SqlDestination.deliver = stopping
try:
    World(Path(sys.argv[1])).run(rows(1, 2, 3, v="old"), batch_size=1)
except RundiffError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def stopped(world: World) -> Iterator[subprocess.Popen[str]]:
    """A run that was stopped after its first batch of three updates."""
    world.run(rows(1, 2, 3))
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(world.folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as worker:
        _, status = os.waitpid(worker.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        try:
            yield worker
        finally:
            worker.kill()
            worker.send_signal(signal.SIGCONT)


def test_a_stopped_run_holds_the_sync(world: World, stopped: subprocess.Popen[str]) -> None:
    with pytest.raises(SyncBusy, match=rf"process {stopped.pid} on .* since .*--wait"):
        world.run(rows(1, 2, 3, v="new"))
    with world.workspace() as workspace:
        assert f"process {stopped.pid}" in (workspace.syncs()[0].running or "")
    stopped.kill()
    stopped.wait()
    result = world.run(rows(1, 2, 3, v="new"))
    assert "run 2 was cut off while delivering" in result.warnings[0]
    assert set(world.table().values()) == {"new"}


def test_a_run_that_lost_its_lock_is_refused_by_its_token(
    world: World, stopped: subprocess.Popen[str]
) -> None:
    [lock] = world.home.glob("syncs/*/lock")
    lock.unlink()  # whoever comes now finds no lock that is held
    world.run(rows(1, 2, v="new"))
    before = world.table()
    stopped.send_signal(signal.SIGCONT)
    told, _ = stopped.communicate()
    assert told.startswith("Fenced ")
    assert world.table() == before == {1: "new", 2: "new"}
    assert world.log() == before
    assert world.run(rows(1, 2, v="new")).counts.written == 0


def test_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run(rows(1))
    [path] = world.home.glob("syncs/*/lock")
    waiting = threading.Event()
    flock = fcntl.flock

    def noted(handle: Any, operation: int) -> None:
        if not operation & fcntl.LOCK_NB:
            waiting.set()
        flock(handle, operation)

    results: list[rundiff.Run] = []
    with path.open("r+b") as lock:
        flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr("rundiff.engine.lease.fcntl.flock", noted)
        thread = threading.Thread(target=lambda: results.append(world.run(rows(1, 2), wait=True)))
        thread.start()
        assert waiting.wait(30)
        assert results == []
    thread.join(30)
    assert results[0].counts.created == 1


def test_a_busy_sync_exits_with_5(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.folder / "s.csv").write_text("id,v\n1,a\n")
    arguments = ["sync", str(world.folder / "s.csv"), "--key", "id", "--to", f"sqlite:///{world.destination}"]
    arguments += ["--into", "t", "--home", str(world.home), "--name", "s", "--json"]
    assert main(arguments) == 0
    capsys.readouterr()
    [path] = world.home.glob("syncs/*/lock")
    with path.open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(arguments) == 5
    said = capsys.readouterr()
    assert "another run of sync s is under way" in said.err
    assert json.loads(said.out)["status"] == "failed"
    assert main(arguments) == 0


def test_changes_of_two_threads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNDIFF_HOME", str(world.home))

    def changes(source: list[dict[str, Any]]) -> rundiff.api.Changes:
        return rundiff.changes(source, primary_key="id", name="c")

    mine = iter(changes(rows(1, 2)))
    next(mine)
    seen: list[Any] = []

    def other() -> None:
        try:
            seen.extend(changes(rows(1, 2)))
        except SyncBusy as error:
            seen.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    assert len(seen) == 1
    assert isinstance(seen[0], SyncBusy)
    assert len(list(mine)) == 1
    assert list(changes(rows(1, 2))) == []


def test_two_syncs_at_once_do_not_meet(world: World) -> None:
    """Ten syncs in ten threads of one home: each has its own lock and its own baseline."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in (3, 5, 2):
                world.run(
                    rows(*range(count)),
                    name=f"s{number}",
                    destination=str(world.folder / f"{number}.jsonl"),
                    into=None,
                )
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    for number in range(10):
        lines = (world.folder / f"{number}.jsonl").read_text().splitlines()
        actions = [json.loads(line)["action"] for line in lines]
        assert actions == ["create"] * 5 + ["delete"] * 3
