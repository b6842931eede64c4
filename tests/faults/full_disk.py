"""Run as `python -m tests.faults.full_disk FOLDER`: sync with ever larger limits on the size of files.

A limit on the size of a file (setrlimit, with SIGXFSZ ignored as Python does) fails a write like a full
disk, at a place that the test chooses. Prints one JSON object a limit.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import rundiff
from tests.faults.worlds import World, rows

BEFORE = rows(*range(400), v="some text that takes its place on the disk, " * 4)
AFTER = rows(*range(100, 900), v="some other text that takes its place on the disk, " * 4)
LIMITS = [0, 300, 1_000, 3_000, 9_000, 20_000, 40_000, 70_000, 110_000, 160_000, 240_000, 400_000]


def state(world: World) -> dict[str, Any]:
    """The committed baseline and the number of rows."""
    with world.workspace() as workspace:
        [sync] = workspace.backends().database.syncs()
        return {"manifest": sync.manifest, "rows": len(world.table())}


def limited(world: World, limit: int) -> dict[str, Any]:
    """Run under a limit, then without one."""
    world.restore("home", "d.db")
    before = state(world)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    error = name = None
    try:
        world.run(AFTER, max_delete_percent=100, batch_size=100)
    except rundiff.RundiffError as raised:
        error, name = str(raised), type(raised).__name__
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    after = state(world)
    result = world.run(AFTER, max_delete_percent=100)
    wrong = []
    if error is not None and after["manifest"] != before["manifest"]:
        wrong.append("a run that failed moved the baseline")
    if world.table() != {row["id"]: row["v"] for row in AFTER} or world.log() != world.table():
        wrong.append("the next run did not make the table the source")
    if result.status != "committed":
        wrong.append(f"the next run: {result}")
    return {"limit": limit, "error": error, "name": name, "wrong": wrong}


def main(folder: Path) -> None:
    world = World(folder)
    world.run(BEFORE)
    world.keep("home", "d.db")
    for limit in LIMITS:
        sys.stdout.write(json.dumps(limited(world, limit)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
