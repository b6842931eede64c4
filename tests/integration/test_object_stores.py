"""Runs into a bucket of an S3 server: whole objects or none, each once, whatever is cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from msgspec.structs import replace
from tests.servers.seaweed import SECRET, SeaweedServer
from tests.servers.valkey import CuttingProxy

import rundiff
from rundiff.destinations import open_destination, runobjects
from rundiff.destinations.contract import Destination, Position, Target
from rundiff.engine.workspace import Workspace
from rundiff.errors import ConfigurationError, DestinationError, Fenced
from rundiff.settings import DestinationOptions, Storage
from rundiff.testing.batches import change_batch

TARGET = Target(sync_id="0b9c4ea8-1f3e", sync="people", primary_key=("id",), token=5)
START = Position(run=3, sequence=0)
ROWS = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]

RUN = """
import os, signal, sys
import obstore
import rundiff

put = obstore.put
def killed(store, name, *content, **options):
    if name.startswith("run-") and sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    put(store, name, *content, **options)
    if name.startswith("run-"):
        os.kill(os.getpid(), signal.SIGKILL)

obstore.put = killed
rundiff.sync([{"id": 1, "v": "a"}, {"id": 2, "v": "b"}], primary_key="id", name="people", destination=sys.argv[1])
"""


def sync(url: str, rows: list[dict[str, Any]], **options: Any) -> rundiff.Run:
    return rundiff.sync(rows, primary_key="id", name="people", destination=url, **options)


def claimed(url: str, target: Target = TARGET, start: Position = START) -> Destination:
    destination = open_destination(DestinationOptions(url=url))
    destination.claim(target, start)
    return destination


def deliver(url: str, rows: list[dict[str, Any]], target: Target = TARGET, size: int = 100) -> None:
    destination, at = claimed(url, target), START
    for offset in range(0, len(rows), size):
        part = change_batch(rows[offset : offset + size], "create", run=3, first=offset + 1)
        at = destination.deliver(target, part, at)
    destination.finish(target, at)
    destination.close()


def changes(server: SeaweedServer, place: str) -> list[tuple[int, str, int]]:
    """Give run, action and id of every line in the order of the names."""
    lines = [line for name in server.names(place) for line in server.read(place, name).splitlines()]
    found = map(json.loads, lines)
    return [(change["run"], change["action"], change["primary_key"]["id"]) for change in found]


def test_an_object_for_each_run_with_changes(
    seaweed_server: SeaweedServer, s3_place: str, home: Path
) -> None:
    url = f"s3://{s3_place}/people.jsonl"
    for rows in (ROWS, ROWS, [{"id": 1, "v": "c"}]):
        assert sync(url, rows).status == "committed"
    assert seaweed_server.names(s3_place) == [
        "people.jsonl/run-00000001.jsonl",
        "people.jsonl/run-00000003.jsonl",
    ]
    assert changes(seaweed_server, s3_place)[2:] == [(3, "delete", 2), (3, "update", 1)]
    tokens = obstore.list(seaweed_server.store(f"{s3_place}/people.jsonl/_rundiff")).collect()
    assert len(tokens) == 1
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert s3_place.encode() in written
    assert SECRET.encode() not in written


@pytest.fixture
def proxy(
    seaweed_server: SeaweedServer, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CuttingProxy]:
    with CuttingProxy(seaweed_server.port) as proxy:
        for name, value in seaweed_server.environment(proxy.port).items():
            monkeypatch.setenv(name, value)
        yield proxy


def test_an_upload_that_breaks_off_shows_nothing(
    seaweed_server: SeaweedServer, s3_place: str, proxy: CuttingProxy
) -> None:
    url = f"s3://{s3_place}/people.jsonl"
    rows = [{"id": number, "v": "x" * 1000} for number in range(400)]
    proxy.cut_after(200_000, times=100)
    with pytest.raises(DestinationError, match="run again"):
        sync(url, rows)
    assert proxy.cut
    assert seaweed_server.names(s3_place) == []
    proxy.cut_after(1 << 40)
    result = sync(url, rows)
    assert any("its delivery was finished first" in warning for warning in result.warnings)
    assert seaweed_server.names(s3_place) == ["people.jsonl/run-00000001.jsonl"]
    assert changes(seaweed_server, s3_place) == [(1, "create", number) for number in _in_order(rows)]


def _in_order(rows: list[dict[str, Any]]) -> list[int]:
    """Give the ids by their key signatures, as a run writes them."""
    return sorted((row["id"] for row in rows), key=lambda key: rundiff.signature({"id": key}))


def test_a_server_that_is_killed(seaweed_server: SeaweedServer, s3_place: str) -> None:
    url = f"s3://{s3_place}/people.jsonl"
    destination = claimed(url)
    at = destination.deliver(TARGET, change_batch(ROWS, "create", run=3), START)
    seaweed_server.kill()
    try:
        with pytest.raises(DestinationError, match="run again"):
            destination.finish(TARGET, at)
        destination.close()
    finally:
        seaweed_server.start()
    assert seaweed_server.names(s3_place) == []
    deliver(url, ROWS, replace(TARGET, token=6))
    assert changes(seaweed_server, s3_place) == [(3, "create", 1), (3, "create", 2)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_that_is_killed(seaweed_server: SeaweedServer, s3_place: str, moment: str) -> None:
    url = f"s3://{s3_place}/people.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", RUN, url, moment], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    names = [f"people.jsonl/run-{1:08d}.jsonl"]
    assert seaweed_server.names(s3_place) == (names if moment == "after" else [])
    store = seaweed_server.store(s3_place)
    before = obstore.head(store, names[0]) if moment == "after" else None
    again = sync(url, [*ROWS, {"id": 3, "v": "c"}])
    assert (again.counts.created, again.counts.written) == (1, 1)
    assert sorted(changes(seaweed_server, s3_place)) == [(1, "create", 1), (1, "create", 2), (2, "create", 3)]
    assert before is None or obstore.head(store, names[0]) == before


def test_what_was_sent_is_known_again_however_it_was_cut(
    seaweed_server: SeaweedServer, s3_place: str
) -> None:
    rows = [{"id": number} for number in range(7)]
    for kind in ("parquet", "csv", "jsonl"):
        url = f"s3://{s3_place}/people.{kind}"
        deliver(url, rows)
        deliver(url, rows, replace(TARGET, token=6), size=2)
    assert len(seaweed_server.names(s3_place)) == 3


def test_other_changes_under_a_name_are_never_written_over(
    seaweed_server: SeaweedServer, s3_place: str
) -> None:
    url = f"s3://{s3_place}/people.jsonl"
    deliver(url, ROWS)
    with pytest.raises(DestinationError, match="restored from an older copy"):
        deliver(url, ROWS[:1], replace(TARGET, token=6))
    assert changes(seaweed_server, s3_place) == [(3, "create", 1), (3, "create", 2)]


def test_syncs_share_a_prefix(seaweed_server: SeaweedServer, s3_place: str) -> None:
    url = f"s3://{s3_place}/people.jsonl"
    obstore.put(seaweed_server.store(s3_place), "people.jsonl/run-00000003.jsonl", b'{"of": "a person"}\n')
    deliver(url, ROWS)
    deliver(url, ROWS)
    deliver(url, ROWS, replace(TARGET, sync_id="two"))
    assert seaweed_server.names(s3_place) == [
        "people.jsonl/run-00000003-0b9c4ea8-1f3e.jsonl",
        "people.jsonl/run-00000003-two.jsonl",
        "people.jsonl/run-00000003.jsonl",
    ]
    assert b"person" in seaweed_server.read(s3_place, "people.jsonl/run-00000003.jsonl")


def test_a_worker_that_wakes_up_is_refused(seaweed_server: SeaweedServer, s3_place: str) -> None:
    url = f"s3://{s3_place}/people.jsonl"
    old = claimed(url)
    at = old.deliver(TARGET, change_batch(ROWS, "create", run=3), START)
    newer = claimed(url, replace(TARGET, token=6))
    with pytest.raises(Fenced):
        old.finish(TARGET, at)
    with pytest.raises(Fenced):
        claimed(url)
    newer.close()
    assert seaweed_server.names(s3_place) == []


def test_two_that_send_at_once_leave_one_object(seaweed_server: SeaweedServer, s3_place: str) -> None:
    url = f"s3://{s3_place}/people.jsonl"
    one, other = claimed(url), claimed(url)
    batch = change_batch(ROWS, "create", run=3)
    at, also = one.deliver(TARGET, batch, START), other.deliver(TARGET, batch, START)
    one.finish(TARGET, at)
    other.finish(TARGET, also)
    assert changes(seaweed_server, s3_place) == [(3, "create", 1), (3, "create", 2)]


def test_large_objects_go_in_parts(
    seaweed_server: SeaweedServer, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runobjects, "_ONE_REQUEST", 1 << 20)
    monkeypatch.setattr(runobjects, "_PART", 5 << 20)
    rows = [{"id": number, "v": "x" * 50_000} for number in range(150)]
    url = f"s3://{s3_place}/people.jsonl"
    deliver(url, rows)
    deliver(url, rows, replace(TARGET, token=6))
    assert changes(seaweed_server, s3_place) == [(3, "create", number) for number in range(150)]


def test_what_a_store_refuses_is_told(
    seaweed_server: SeaweedServer, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = open_destination(DestinationOptions(url="s3://never-made/people.csv"))
    with pytest.raises(ConfigurationError, match="There is no bucket never-made"):
        destination.check(TARGET, None)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never-show-another")
    with pytest.raises(DestinationError, match="refuses these credentials") as caught:
        sync(f"s3://{s3_place}/people.csv", ROWS)
    assert "never-show" not in str(caught.value)
    assert seaweed_server.names(s3_place) == []


def test_a_temporary_folder_that_is_missing(
    seaweed_server: SeaweedServer, s3_place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    destination = claimed(f"s3://{s3_place}/people.csv")
    with pytest.raises(
        DestinationError, match=r"gathered in .*gone: No such file.* by TMPDIR, then run again"
    ):
        destination.deliver(TARGET, change_batch(ROWS, "create", run=3), START)
    assert seaweed_server.names(s3_place) == []


def test_what_is_approved_goes_to_the_same_place_in_the_same_form(
    seaweed_server: SeaweedServer, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = seaweed_server.environment()["AWS_ENDPOINT_URL"]
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    url = f"s3://{s3_place}/people.csv?endpoint={endpoint}"
    sync(url, [{"id": 1, "v": "=a"}, *ROWS[1:]], csv_formula_safe=True)
    held = sync(url, ROWS[1:], csv_formula_safe=True, max_deletes=0)
    assert held.counts.deletes_held == 1
    with Workspace(Storage(home=os.environ["RUNDIFF_HOME"])) as workspace:
        workspace.approve("people")
    names = seaweed_server.names(s3_place)
    assert len(names) == 2
    assert b'"delete",1,"\'=a"' in seaweed_server.read(s3_place, names[-1])
