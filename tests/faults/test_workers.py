"""Workers that die, stop or come too late: their batches are taken over, and nothing is lost or written twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rundiff
from tests.servers.teams import Team, shared, team

__all__ = ["shared", "team"]

WORKER = """
import json, os, signal, sys
import rundiff
from rundiff.errors import RundiffError

given = json.loads(sys.argv[1])
act, number = sys.argv[2], getattr(signal, sys.argv[3])


def rows(first, last, v):
    for each in range(first, last):
        if each == last - 1 and act == "read":
            os.kill(os.getpid(), number)
        yield {"id": each, "v": v}


def breaking(owner, name):
    inner = getattr(owner, name)

    def outer(*arguments, **options):
        os.kill(os.getpid(), number)
        return inner(*arguments, **options)

    setattr(owner, name, outer)


if act == "put":
    from rundiff.database.joined import JoinedTables
    breaking(JoinedTables, "add")
if act == "begin":
    from rundiff.database.joined import JoinedTables
    breaking(JoinedTables, "number")
if act == "seal":
    from rundiff.engine.run import Execution
    breaking(Execution, "seal")
if act == "deliver":
    from rundiff.destinations.sql import SqlDestination
    inner, calls = SqlDestination.deliver, []

    def deliver(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return inner(self, *arguments)

    SqlDestination.deliver = deliver
if act == "commit":
    from rundiff.engine.run import Execution
    breaking(Execution, "commit")
try:
    with rundiff.Run.join(run="r", batches=["a", "b"], batch_size=4, **given) as run:
        run.add(rows(0, 10, "b"), batch="a")
        if act not in ("read", "put"):
            run.add(rows(10, 19, "b"), batch="b")
            print(run.seal().status)
except RundiffError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def leased(team: Team) -> Team:
    """Leases end soon after their process."""
    if "database" in team.shared:
        url = team.shared["database"]
        team.shared = {**team.shared, "database": f"{url}&lease_seconds=2"}
    return team


def worker(team: Team, act: str, what: str = "SIGKILL") -> subprocess.Popen[str]:
    given = json.dumps({**team.given(1), "home": str(team.given(1)["home"])})
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, given, act, what],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def orders(first: int, last: int, v: str) -> list[dict[str, Any]]:
    return [{"id": each, "v": v} for each in range(first, last)]


@pytest.fixture
def twenty(leased: Team) -> Team:
    leased.sync(orders(0, 20, "a"))
    return leased


def is_done(team: Team) -> None:
    """Nineteen were updated, one is gone, each once."""
    assert team.table() == [(each, "b") for each in range(19)]
    with team.workspace() as workspace:
        told = workspace.sql(
            "SELECT destination_action AS action, count(*) AS records, count(DISTINCT primary_key_signature) AS keys "
            "FROM sync_write_records WHERE run_id > 1 AND status = 'written' GROUP BY 1 ORDER BY 1"
        ).to_pylist()
    assert told == [
        {"action": "delete", "records": 1, "keys": 1},
        {"action": "update", "records": 19, "keys": 19},
    ]
    assert team.objects() == []
    assert team.sync(orders(0, 19, "b"), 2).counts.unchanged == 19


@pytest.mark.parametrize("act", ["read", "put"])
def test_a_worker_killed_in_mid_batch_is_taken_over(twenty: Team, act: str) -> None:
    with worker(twenty, act) as dying:
        assert dying.wait(60) == -signal.SIGKILL
    with twenty.join("r", batches=["a", "b"]) as run:
        assert run.status().missing == ("a", "b")
        assert run.add(orders(10, 19, "b"), batch="b")
        with pytest.raises(rundiff.StateChanged, match=r"missing: a\."):
            run.seal()
        assert len(twenty.table()) == 20
        assert run.add(orders(0, 10, "b"), batch="a")
        assert run.seal().counts.deleted == 1
    is_done(twenty)


@pytest.mark.parametrize("act", ["begin", "seal", "deliver", "commit"])
def test_another_seals_what_a_killed_worker_began_to_seal(twenty: Team, act: str) -> None:
    with worker(twenty, act) as dying:
        assert dying.wait(60) == -signal.SIGKILL
    with twenty.join("r", batches=["a", "b"]) as run:
        assert run.status().lacking == 0
        result = run.seal()
    assert (result.counts.updated, result.counts.deleted, result.status) == (19, 1, "committed")
    is_done(twenty)


def test_the_next_run_finishes_what_a_killed_worker_was_delivering(twenty: Team) -> None:
    with worker(twenty, "deliver") as dying:
        assert dying.wait(60) == -signal.SIGKILL
    assert twenty.sync(orders(0, 19, "b"), wait=True).counts.unchanged == 19
    with twenty.join("r") as run:
        assert run.seal().run == 2
    is_done(twenty)


def stopped(process: subprocess.Popen[str]) -> None:
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def said(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=60)
    return out


@pytest.mark.parametrize("act", ["read", "put"])
def test_a_worker_that_wakes_up_after_the_seal_is_refused(twenty: Team, act: str) -> None:
    with worker(twenty, act, "SIGSTOP") as sleeping:
        stopped(sleeping)
        with twenty.join("r") as run:
            run.add(orders(0, 10, "b"), batch="a")
            run.add(orders(10, 19, "b"), batch="b")
            run.seal()
        assert "Fenced sync orders: run r was sealed" in said(sleeping)
    is_done(twenty)


def test_a_worker_that_stops_while_it_seals_is_succeeded(twenty: Team) -> None:
    if not twenty.shared:
        pytest.skip("a lock on a file lasts as long as its process lives")
    with worker(twenty, "deliver", "SIGSTOP") as sleeping:
        stopped(sleeping)
        with twenty.join("r") as run:
            assert run.seal().counts.updated == 19
        assert "Fenced" in said(sleeping)
    is_done(twenty)
