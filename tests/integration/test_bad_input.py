"""Bad input through the command: a clear sentence, the right exit code, and nothing lost."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.sqlitefiles import opened

GOOD = b"id,v\n1,a\n2,b\n3,c\n"


def run(folder: Path, source: str, *more: str) -> tuple[int, dict[str, Any], str]:
    """Run a sync; give its exit code, its object, and what stood on standard error."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "rundiff", "sync", source, "--key", "id"),
            *("--to", "sqlite:///d.db", "--into", "t", "--name", "s", "--json", *more),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def held(folder: Path) -> list[tuple[Any, ...]]:
    with opened(folder / "d.db") as connection:
        return connection.execute("SELECT id, v FROM t ORDER BY id").fetchall()


ALL = [(1, "a"), (2, "b"), (3, "c")]


@pytest.fixture
def synced(tmp_path: Path) -> Path:
    """A folder with a good file that was synced once."""
    (tmp_path / "s.csv").write_bytes(GOOD)
    assert run(tmp_path, "s.csv")[0] == 0
    return tmp_path


def parquet(rows: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": list(range(rows)), "v": ["x"] * rows}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.csv", None, "no file"),
        ("s.csv", b"", "empty"),
        ("s.csv", b"key,v\n1,a\n", "no field"),
        ("s.csv", b"id,v,v\n1,a,b\n", "more than one"),
        ("s.csv.gz", gzip.compress(GOOD * 500, mtime=0)[:-20], "cut short"),
        ("s.parquet", parquet(1000)[:-500], "cut short"),
        ("s.json", b'[{"id": 1, "v": "a"}, {"id": 2', "cut short"),
    ],
    ids=lambda value: value if isinstance(value, str) else "content",
)
def test_runs_that_fail_leave_everything_as_it_was(
    synced: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (synced / name).write_bytes(content)
    code, result, errors = run(synced, name)
    assert code == 1
    assert errors.startswith("rundiff: ")
    assert errors.count("\n") == 1
    assert says in errors.lower()
    assert result.get("status", "failed") == "failed"
    assert held(synced) == ALL
    (synced / "s.csv").write_bytes(GOOD)
    code, result, _ = run(synced, "s.csv")
    assert (code, result["unchanged"], result["deleted"]) == (0, 3, 0)


@pytest.mark.parametrize(
    ("content", "unreadable", "rows"),
    [
        (b"id,v\n1,a\n2,b,extra\n", 1, ALL),
        (b"id,v\n1,A\n2\n3,c\n", 1, [(1, "A"), (2, "b"), (3, "c")]),
        (b"id,v\n1,a\n2,\xff\xfe\n", 1, ALL),
        (b"id,v\n1,a\n2,b\n3,", 1, ALL),
        (b'id,v\n1,a\n2,"b\n3,c\n', 1, ALL),
        (b"id,v\n1,a\nx,b\n", 1, ALL),
    ],
    ids=["ragged", "short", "utf-8", "cut", "quote", "type"],
)
def test_unreadable_records_are_told_and_nothing_is_deleted(
    synced: Path, content: bytes, unreadable: int, rows: list[tuple[Any, ...]]
) -> None:
    (synced / "s.csv").write_bytes(content)
    code, result, _ = run(synced, "s.csv")
    assert (code, result["status"], result["complete"]) == (4, "committed", False)
    assert (result["unreadable"], result["deleted"]) == (unreadable, 0)
    assert held(synced) == rows


def test_a_header_alone_is_an_empty_extract_and_held(synced: Path) -> None:
    (synced / "s.csv").write_bytes(b"id,v\n")
    code, result, _ = run(synced, "s.csv")
    assert (code, result["status"], result["deletes_held"]) == (3, "held", 3)
    assert held(synced) == ALL


def test_a_broken_json_line_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"id": 1, "v": "a"}\n{"id": 2, "v":\n{"id": 3, "v": "c"}\n')
    code, result, _ = run(tmp_path, "s.jsonl")
    assert (code, result["created"], result["unreadable"]) == (4, 2, 1)


def test_numbers_keep_every_digit(tmp_path: Path) -> None:
    big = "12345678901234567890123"
    (tmp_path / "s.jsonl").write_text(f'{{"id": {big}, "v": 1e400}}\n{{"id": {big[:-1]}4, "v": 0.1}}\n')
    assert run(tmp_path, "s.jsonl")[1]["created"] == 2
    (tmp_path / "s.csv").write_text(f"id,v\n{big},01234\n{big[:-1]}4,nan\n")
    assert run(tmp_path, "s.csv", "--name", "c", "--into", "c")[1]["created"] == 2
    with opened(tmp_path / "d.db") as connection:
        rows = connection.execute("SELECT cast(id AS text), v FROM c ORDER BY 1").fetchall()
    assert rows == [(big, "01234"), (big[:-1] + "4", "nan")]


def test_odd_texts_arrive_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(b'id,v\n1,a\x00b\n2,""\n3,\n4,"x\ny"\n')
    assert run(tmp_path, "s.csv")[0] == 0
    assert held(tmp_path) == [(1, "a\0b"), (2, ""), (3, None), (4, "x\ny")]


def test_a_hundred_megabytes_in_one_field(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(b"id,v\n1," + b"x" * 100_000_000 + b"\n2,b\n")
    assert run(tmp_path, "s.csv")[0] == 0
    with opened(tmp_path / "d.db") as connection:
        assert connection.execute("SELECT id, length(v) FROM t ORDER BY id").fetchall() == [
            (1, 100_000_000),
            (2, 1),
        ]


def test_two_thousand_columns(tmp_path: Path) -> None:
    names = ["id", *(f"c{i}" for i in range(1, 2000))]
    lines = [",".join(names), *(",".join([str(row), *["7"] * 1999]) for row in range(3))]
    (tmp_path / "s.csv").write_text("\n".join(lines) + "\n")
    code, result, errors = run(tmp_path, "s.csv")
    assert (code, result["created"]) == (0, 3), errors


def test_a_column_that_cannot_hold_the_field_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "d.db") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER) STRICT")
    (tmp_path / "s.csv").write_bytes(GOOD)
    code, result, errors = run(tmp_path, "s.csv")
    assert (code, result["written"]) == (2, 0)
    assert "column" in errors
    assert held(tmp_path) == []


def test_a_full_disk_fails_the_run_and_loses_nothing(synced: Path) -> None:
    rows = "".join(f"{i},{'x' * 200}{i}\n" for i in range(20_000))
    (synced / "s.csv").write_text("id,v\n" + rows)
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)); "
    limit += (
        "import sys; sys.argv = ['rundiff', *sys.argv[1:]]; from rundiff.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", limit, "sync", "s.csv", "--key", "id"),
            *("--to", "sqlite:///d.db", "--into", "t", "--name", "s", "--json"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=synced,
        env=os.environ,
    )
    assert done.returncode == 1
    assert "Free disk space" in done.stderr
    assert held(synced) == ALL
    code, result, _ = run(synced, "s.csv", "--max-delete-percent", "100")
    assert (code, result["created"] + result["updated"]) == (0, 20_000)


def test_two_runs_at_once(synced: Path, home: Path) -> None:
    import fcntl

    (lock,) = home.glob("syncs/*/lock")
    with lock.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, errors = run(synced, "s.csv")
    assert code == 5
    assert "another run of sync s is under way" in errors
