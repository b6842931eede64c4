from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from rundiff.destinations import open_destination
from rundiff.destinations.contract import Destination, Position, Target
from rundiff.errors import ConfigurationError
from rundiff.settings import DestinationOptions
from rundiff.testing.batches import change_batch

TARGET = Target(sync_id="one", sync="people", primary_key=("id",), token=1)
OTHER = Target(sync_id="two", sync="orders", primary_key=("id",), token=1)
START = Position(run=1, sequence=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "changes.jsonl"


@pytest.fixture
def stream(path: Path) -> Destination:
    return open_destination(DestinationOptions(url=str(path)))


def keys(path: Path) -> list[str]:
    return [json.loads(line)["idempotency_key"] for line in path.read_text().splitlines()]


def test_the_marker_is_the_length(stream: Destination, path: Path) -> None:
    at = stream.deliver(TARGET, change_batch([{"id": 1}], "create"), START)
    assert at == Position(run=1, sequence=1, marker=str(path.stat().st_size))
    assert stream.advance(TARGET, at, Position(run=1, sequence=2)).marker == at.marker
    assert stream.position(TARGET) is None


def test_an_existing_file_is_appended_to(stream: Destination, path: Path) -> None:
    path.write_text('{"mine": 1}\n')
    stream.claim(TARGET, START)
    assert stream.advance(TARGET, START, START).marker == str(path.stat().st_size)
    stream.deliver(TARGET, change_batch([{"id": 1}], "create"), START)
    assert path.read_text().splitlines()[0] == '{"mine": 1}'


@pytest.mark.parametrize("left", ["", '{"sync":"people","run":1,"seq', '{"sync":"people"'])
def test_a_crash_is_cut_back_to_the_marker(stream: Destination, path: Path, left: str) -> None:
    at = stream.deliver(TARGET, change_batch([{"id": 1}], "create"), START)
    stream.deliver(TARGET, change_batch([{"id": 2}, {"id": 3}], "create", first=2), at)
    with path.open("a") as file:
        file.write(left)
    stream.claim(TARGET, at)
    assert keys(path) == ["one/1/1"]


def test_lines_of_another_sync_are_never_cut(stream: Destination, path: Path) -> None:
    at = stream.deliver(TARGET, change_batch([{"id": 1}], "create"), START)
    stream.deliver(TARGET, change_batch([{"id": 2}], "create", first=2), at)
    stream.deliver(OTHER, change_batch([{"id": 1, "idempotency_key": "one/1/9"}], "create"), START)
    with path.open("a") as file:
        file.write('{"sync":"torn')
    stream.claim(TARGET, at)
    assert keys(path) == ["one/1/1", "one/1/2", "two/1/1"]


def test_a_torn_line_without_a_marker_is_cut(stream: Destination, path: Path) -> None:
    path.write_text('{"a":1}\n{"b":' + "x" * 3_000_000)
    stream.claim(TARGET, START)
    assert path.read_text() == '{"a":1}\n'


def test_a_whole_last_line_gets_its_end(stream: Destination, path: Path) -> None:
    path.write_text('{"a":1}\n{"b":2}')
    stream.claim(TARGET, START)
    assert path.read_text() == '{"a":1}\n{"b":2}\n'


@pytest.mark.parametrize("rotated", [None, "", '{"new":1}\n'])
def test_a_file_that_its_reader_took_away(stream: Destination, path: Path, rotated: str | None) -> None:
    at = stream.deliver(TARGET, change_batch([{"id": n} for n in range(9)], "create"), START)
    path.unlink()
    if rotated is not None:
        path.write_text(rotated)
    stream.claim(TARGET, at)
    at = stream.deliver(TARGET, change_batch([{"id": 9}], "create", first=10), at)
    assert path.read_text().startswith((rotated or "") + '{"sync":"people","run":1,"sequence":10')
    assert at.marker == str(path.stat().st_size)


def test_a_full_disk_is_a_destination_error(tmp_path: Path) -> None:
    stream = open_destination(DestinationOptions(url=str(tmp_path / "a.jsonl")))
    code = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
    code += f"from tests.unit.destinations.workers import overfill; overfill({str(tmp_path / 'a.jsonl')!r})"
    stream.deliver(TARGET, change_batch([{"id": 1}], "create"), START)
    before = (tmp_path / "a.jsonl").read_bytes()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("DestinationError The change stream"), done.stderr
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_places_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("missing/a.jsonl", "folder.jsonl", "pipe.jsonl"):
        with pytest.raises(ConfigurationError):
            open_destination(DestinationOptions(url=str(tmp_path / name))).check(TARGET, {"id": pa.int64()})


def test_types_without_a_form_are_refused(stream: Destination) -> None:
    with pytest.raises(ConfigurationError, match="dictionary"):
        stream.check(TARGET, {"id": pa.dictionary(pa.int8(), pa.string())})


def test_batches_larger_than_a_block(stream: Destination, path: Path) -> None:
    table = pa.table({"id": range(40_000)})
    at = stream.deliver(TARGET, change_batch(table, "create"), START)
    assert (at.sequence, keys(path)) == (40_000, [f"one/1/{n}" for n in range(1, 40_001)])


def test_standard_output() -> None:
    code = "from tests.unit.destinations.workers import deliver_to_standard_output as d; d(2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["sequence"] for line in done.stdout.splitlines()] == [1, 2] * 50


def test_a_reader_that_went_away() -> None:
    code = "from tests.unit.destinations.workers import deliver_to_standard_output as d; d(2_000)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.readline()
        writer.stdout.close()
        errors = writer.stderr.read().decode()
    assert writer.returncode == 7
    assert errors.splitlines() == [
        "DestinationError The reader of standard output went away: run again, delivery goes on where it stopped."
    ]
