"""Run one process and measure it from outside: wall clock, processor time, memory.

The process that measures imports nothing large: what it holds itself at the time of a fork would be the
least that Linux reports as the child's peak (`ru_maxrss` is inherited over `exec`).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BenchmarkError", "Measurement", "run"]

_SAMPLE_SECONDS = 0.01


class BenchmarkError(Exception):
    """A process ended with an error, or its result was wrong."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run of a process took."""

    wall: float
    """Seconds from its start to its end."""
    cpu: float
    """Seconds of all cores, of the process and of the children that it waited for."""
    peak_rss: int
    """Bytes: the largest resident set, files that it maps included (getrusage(2), ru_maxrss)."""
    peak_anonymous: int
    """Bytes: the largest RssAnon of proc_pid_status(5) that was seen, files that it maps left out.

    Sampled every 10 ms; 0 for a process that ended before the first sample.
    """
    answer: Mapping[str, Any]
    """The last line of its standard output, which is JSON; empty where there is none."""


def run(command: Sequence[str], folder: Path, timeout: float) -> Measurement:
    """Run a command with `folder` as its working directory and measure it.

    Raises `BenchmarkError` if it ends with an error or takes longer than `timeout` seconds; it is then killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - commands of this package, without a shell
            command, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        watch = _Watch(process.pid, started + timeout)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        watch.end()
        process.returncode = os.waitstatus_to_exitcode(
            status
        )  # already waited for: Popen must not do it again
        output.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            said = errors.read().decode(errors="replace").strip()[-2_000:]
            raise BenchmarkError(
                f"{' '.join(command)}\nended with {process.returncode} after {wall:.1f} s: {said}"
            )
        lines = output.read().decode().splitlines()
    answer = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Measurement(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_rss=usage.ru_maxrss * 1024,
        peak_anonymous=watch.peak,
        answer=answer,
    )


class _Watch(threading.Thread):
    """Samples a process's memory, and kills it when its time is over."""

    def __init__(self, pid: int, deadline: float) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._path = Path(f"/proc/{pid}/status")
        self._pid = pid
        self._deadline = deadline
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.peak = max(self.peak, self._anonymous())
            if time.perf_counter() > self._deadline:
                os.kill(self._pid, 9)
                return

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _anonymous(self) -> int:
        try:
            status = self._path.read_text()
        except OSError:
            return 0  # it has just ended
        line = next((line for line in status.splitlines() if line.startswith("RssAnon:")), None)
        return int(line.split()[1]) * 1024 if line else 0  # a zombie has no memory left


def _environment() -> dict[str, str]:
    """Give the environment without what would point Rundiff elsewhere, sign under a key or alter Python.

    PYTHONDONTWRITEBYTECODE above all: with it, each start would compile every module anew.
    """
    ours = ("RUNDIFF_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    native = os.environ.get("RUNDIFF_NATIVE")
    # The scripts are modules of this package; the working directory is the contestant's own folder.
    return kept | {"PYTHONPATH": str(Path.cwd())} | ({} if native is None else {"RUNDIFF_NATIVE": native})
