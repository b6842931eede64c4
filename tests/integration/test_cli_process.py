"""The command as a process: pipes, a terminal, an interrupt, standard input, a second run."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-c", "from rundiff.cli import main; raise SystemExit(main())"]
TO_FILE = ["--key", "id", "--to", "out.jsonl"]


@pytest.fixture(autouse=True)
def _in_a_directory_with_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RUNDIFF_HOME", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    Path("numbers.csv").write_text("id,n\n" + "".join(f"{i},{i}\n" for i in range(20_000)), encoding="utf-8")


def on_a_terminal(*arguments: str) -> tuple[int, str, str]:
    """Run with standard error on a terminal; give the exit code, standard output, and the terminal's text."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        seen = b"".join(chunks(ours))
        assert process.stdout
        out = process.stdout.read()
    os.close(ours)
    return process.returncode, out.decode(), seen.decode()


def chunks(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(descriptor, 65_536)
        except OSError:  # the last writer has gone
            return
        if not chunk:
            return
        yield chunk


def test_progress_is_shown_on_a_terminal_only() -> None:
    code, out, seen = on_a_terminal("sync", "numbers.csv", *TO_FILE, "--json")
    assert (code, json.loads(out)["created"]) == (0, 20_000)
    assert "numbers" in seen
    assert "\x1b[" in seen
    quiet = on_a_terminal("sync", "numbers.csv", *TO_FILE, "--json", "--quiet")
    assert (quiet[0], quiet[2]) == (0, "")
    piped = subprocess.run([*COMMAND, "sync", "numbers.csv", *TO_FILE], capture_output=True, check=True)
    assert piped.stderr == b""
    assert b"\x1b" not in piped.stdout


def test_a_narrow_terminal_gets_wide_rows_one_field_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([*COMMAND, "sync", "numbers.csv", *TO_FILE], capture_output=True, check=True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    ours, theirs = pty.openpty()
    query = "select * from sync_write_records where primary_key->>'id' = '7'"
    with subprocess.Popen([*COMMAND, "sql", query], stdout=theirs):
        os.close(theirs)
        lines = b"".join(chunks(ours)).decode().splitlines()
    os.close(ours)
    assert lines[0] == "row 1"
    assert '  primary_key            {"id":7}' in lines


def test_standard_input_and_output() -> None:
    text = b"id,name\n1,Ada\n2,Grace\n"
    arguments = ["sync", "-", "--key", "id", "--to", "-", "--name", "people", "--json"]
    done = subprocess.run([*COMMAND, *arguments], input=text, capture_output=True, check=True)
    assert [json.loads(line)["primary_key"]["id"] for line in done.stdout.splitlines()] in ([1, 2], [2, 1])
    first = json.loads(done.stderr)
    assert (first["created"], first["warnings"]) == (2, [])
    again = subprocess.run([*COMMAND, *arguments], input=text, capture_output=True, check=True)
    assert again.stdout == b""
    # Only then is there something that a stream that broke off could seem to delete.
    [warning] = json.loads(again.stderr)["warnings"]
    assert "so nothing is deleted: standard input may have been cut off" in warning


def test_a_held_stream_is_approved_into_standard_output() -> None:
    arguments = ["numbers.csv", "--key", "id", "--to", "-"]
    subprocess.run([*COMMAND, "sync", *arguments], capture_output=True, check=True)
    Path("numbers.csv").write_text("id,n\n", encoding="utf-8")
    held = subprocess.run([*COMMAND, "sync", *arguments], capture_output=True, check=False)
    assert (held.returncode, held.stdout) == (3, b"")
    assert b"rundiff approve numbers --digest" in held.stderr
    approved = subprocess.run([*COMMAND, "approve", "numbers"], capture_output=True, check=True)
    actions = {json.loads(line)["action"] for line in approved.stdout.splitlines()}
    assert actions == {"delete"}
    assert b"20,000" in approved.stderr


def test_a_plan_is_applied_into_standard_output() -> None:
    arguments = ["numbers.csv", "--key", "id", "--to", "-", "--out", "a.plan", "--quiet"]
    subprocess.run([*COMMAND, "plan", *arguments], capture_output=True, check=True)
    applied = subprocess.run([*COMMAND, "apply", "a.plan"], capture_output=True, check=True)
    assert {json.loads(line)["action"] for line in applied.stdout.splitlines()} == {"create"}
    assert b"20,000" in applied.stderr


def test_an_interrupt_is_one_sentence() -> None:
    process = subprocess.Popen(
        [*COMMAND, "sync", "-", "--key", "id", "--to", "out.jsonl"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdin
        process.stdin.write(b"id\n1\n")
        process.stdin.flush()
        wait_for(".rundiff/syncs/*/spool/*")  # from then on there is a run that can fail
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == b""
    assert err.decode() == (
        "rundiff: interrupted: sync stdin: run 1 had delivered nothing, and the next run reads the source anew.\n"
    )
    assert not Path("out.jsonl").exists()


def test_a_second_run_of_a_sync_exits_with_5() -> None:
    subprocess.run([*COMMAND, "sync", "numbers.csv", *TO_FILE], capture_output=True, check=True)
    (lock,) = Path(".rundiff/syncs").glob("*/lock")
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        busy = subprocess.run(
            [*COMMAND, "sync", "numbers.csv", *TO_FILE, "--json"], capture_output=True, check=False
        )
    assert busy.returncode == 5
    assert json.loads(busy.stdout)["status"] == "failed"
    assert busy.stderr.startswith(b"rundiff: ")
    assert busy.stderr.count(b"\n") == 1


def test_a_closed_pipe_leaves_a_run_that_is_done() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "sync", "numbers.csv", *TO_FILE], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
    shown = subprocess.run([*COMMAND, "runs", "--json"], capture_output=True, check=True)
    assert json.loads(shown.stdout)["status"] == "committed"


def wait_for(pattern: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not list(Path().glob(pattern)):
        assert time.monotonic() < end, f"{pattern} never came"
        time.sleep(0.02)
