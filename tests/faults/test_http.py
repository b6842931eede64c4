"""HTTP delivery that is broken off: at least once, with the same idempotency key on every repeat."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import stamina

from rundiff.api import Sync
from rundiff.cli import stopping
from tests.servers.http import ApiServer, Reply, Seen, api_server

PEOPLE = 300


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with api_server() as server:
        yield server


def people(count: int = PEOPLE) -> list[dict[str, Any]]:
    return [{"id": i, "v": f"v{i}"} for i in range(count)]


def expected(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {str(row["id"]): row for row in rows}


def sync(api: ApiServer, rows: Any, home: Path, **options: Any) -> Any:
    stamina.set_testing(True, attempts=5, cap=True)
    try:
        return Sync(
            rows,
            "id",
            name="s",
            destination=api.url,
            home=home,
            http_allow_private=True,
            max_delete_percent=100,
            **options,
        ).run()
    finally:
        stamina.set_testing(False)


def check_keys(api: ApiServer) -> None:
    """One key means one change: whatever came twice came as it was."""
    first: dict[str, Seen] = {}
    for seen in api.seen:
        known = first.setdefault(seen.key, seen)
        assert (known.method, known.path, known.text) == (seen.method, seen.path, seen.text)


@pytest.mark.parametrize("seed", range(2))
def test_a_server_that_applies_and_then_drops_the_connection(api: ApiServer, home: Path, seed: int) -> None:
    random = Random(seed)  # noqa: S311 -- no secret, but the same every time

    def rule(_: Seen) -> Reply | None:
        chance = random.random()
        if chance < 0.25:
            return Reply(apply=True, drop=True)
        return Reply(drop=True) if chance < 0.35 else None

    api.rule = rule
    result = sync(api, people(), home)
    rows = [{"id": row["id"], "v": "new" if row["id"] % 3 else row["v"]} for row in people()[50:]]
    changed = sync(api, rows, home)
    assert len(api.seen) > len(api.applied)
    check_keys(api)
    # The server knows its keys, so each change was applied once, however often it came.
    assert len(set(api.applied)) == len(api.applied)
    api.rule = lambda _: None
    last = sync(api, rows, home)
    assert last.counts.created + last.counts.updated + last.counts.deleted == changed.counts.failed
    assert result.counts.written + result.counts.failed == PEOPLE
    assert api.rows == expected(rows)
    assert sync(api, rows, home).counts.unchanged == len(rows)


def test_a_server_that_forgets_keys_ends_up_right_as_well(api: ApiServer, home: Path) -> None:
    random = Random(7)  # noqa: S311 -- as above
    api.forgetful = True
    api.rule = lambda _: Reply(apply=True, drop=True) if random.random() < 0.3 else None
    sync(api, people(100), home)
    sync(api, people(100)[30:], home)
    api.rule = lambda _: None
    sync(api, people(100)[30:], home)
    assert api.rows == expected(people(100)[30:])


IMPATIENT = "from rundiff.cli import main, stopping; stopping.GRACE_SECONDS = 1.0; raise SystemExit(main())"


def start(
    api: ApiServer, source: Path | str, home: Path, *more: str, command: tuple[str, ...] = ("-m", "rundiff")
) -> subprocess.Popen[str]:
    arguments = [*command, "sync", str(source), "--key", "id", "--to", api.url]
    options = ["--home", str(home), "--name", "s", "--http-allow-private", *more]
    return subprocess.Popen(
        [sys.executable, *arguments, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


def wait_for(api: ApiServer, requests: int) -> None:
    until = time.monotonic() + 30
    while len(api.seen) < requests:
        assert time.monotonic() < until, "no requests came"
        time.sleep(0.005)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text("id,v\n" + "".join(f"{row['id']},{row['v']}\n" for row in people()))
    return path


@pytest.mark.parametrize("requests", [1, 130, 290])
def test_a_killed_run_is_finished_under_the_same_keys(
    api: ApiServer, home: Path, source: Path, requests: int
) -> None:
    api.rule = lambda _: Reply(status=201, apply=True, delay=0.002)
    process = start(api, source, home)
    wait_for(api, requests)
    process.kill()
    process.communicate(timeout=30)
    api.rule = lambda _: None
    again = start(api, source, home, "--json")
    assert again.wait(timeout=30) == 0, again.communicate()
    again.communicate()
    check_keys(api)
    assert len({seen.key for seen in api.seen}) == PEOPLE
    assert api.rows == expected(people())


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGTERM, "stopped by SIGTERM"), (signal.SIGINT, "interrupted")]
)
@pytest.mark.parametrize("concurrency", ["1", "4"])
def test_a_signal_ends_a_delivery_in_order(
    api: ApiServer, home: Path, source: Path, number: int, how: str, concurrency: str
) -> None:
    api.rule = lambda _: Reply(status=201, apply=True, delay=0.02)
    process = start(api, source, home, "--http-concurrency", concurrency)
    wait_for(api, 20)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"{how}: sync s: run 1 stopped while delivering; the next run first delivers the" in said
    assert "Traceback" not in said
    api.rule = lambda _: None
    again = start(api, source, home)
    out, _ = again.communicate(timeout=30)
    assert again.returncode == 0
    assert "its delivery was finished first" in out
    check_keys(api)
    assert api.rows == expected(people())


def test_a_server_that_hangs_delays_no_stop(api: ApiServer, home: Path, source: Path) -> None:
    assert stopping.GRACE_SECONDS < 10
    api.rule = lambda _: Reply(drop=True, delay=25)
    process = start(api, source, home, command=("-c", IMPATIENT))
    wait_for(api, 1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert "ended at once" in said
    assert process.returncode == 143
    api.rule = lambda _: None
    again = start(api, source, home)
    again.communicate(timeout=30)
    assert again.returncode == 0
    assert api.rows == expected(people())


def test_a_signal_while_reading_leaves_nothing_behind(api: ApiServer, home: Path) -> None:
    process = start(api, "-", home)
    assert process.stdin is not None
    process.stdin.write("id,v\n1,a\n")
    process.stdin.flush()
    until = time.monotonic() + 60
    while not list(home.glob("syncs/*/spool/*")):
        assert time.monotonic() < until, "it never began to read"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    _, said = process.communicate()
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said
    assert api.seen == []
