"""Rundiff with its signature store on Valkey: the command as a whole process, beside a server.

The variant `kept` has the local copy of the baseline that the last run left; `fetched` does not, as a worker on
another machine. The server's start, and its loading and saving of what the first run left, are not counted: in
use it would be running.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.outcome import Job, Outcome, job, state
from benchmarks.peers.valkey_server import going_on

_SLOW_MICROSECONDS = 10_000


def main() -> None:
    """Start a server on what is left of the last run, sync, and leave it saved."""
    given = job()
    begun = time.perf_counter()
    with going_on(given.folder) as (client, url):
        with contextlib.suppress(PermissionError):
            # SLOWLOG goes by the clock: what the machine gives to others while a command runs is none of its time.
            os.setpriority(os.PRIO_PROCESS, client.info("server")["process_id"], -15)
        client.config_set("slowlog-log-slower-than", _SLOW_MICROSECONDS)
        client.slowlog_reset()
        before = client.info("memory")["used_memory"]
        if given.variant == "fetched":
            shutil.rmtree(Path(given.folder) / "home" / "cache", ignore_errors=True)
        started = time.perf_counter()
        result = _sync(given, url)
        seconds = time.perf_counter() - started
        figures: dict[str, float] = {"commands_over_10_ms": client.slowlog_len()}
        if given.phase == "first":
            used = client.info("memory")["used_memory"] - before
            figures["state_bytes_per_record"] = used / max(1, result["created"])
    state(
        Outcome(
            seconds=seconds,
            created=result["created"],
            updated=result["updated"],
            deleted=result["deleted"],
            not_counted=time.perf_counter() - begun - seconds,
            figures=figures,
        )
    )


def _sync(given: Job, url: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "rundiff", "sync", given.source, "--key", "id", "--name", "benchmark"]
    command += [
        "--to",
        f"{given.folder}/changes.parquet",
        "--home",
        f"{given.folder}/home",
        "--signatures",
        url,
    ]
    command += ["--max-delete-percent", "100", "--json", "--quiet"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own command
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()
