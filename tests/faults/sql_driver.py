"""Kill Rundiff, kill the server or drop its connections at random points of deliveries, and look.

    python -m tests.faults.sql_driver --points 400 --seed 7
    python -m tests.faults.sql_driver --points 100 --place mariadb --fault server

Each point is one run, in one of the four modes in turn, that meets the fault at a random one of its
exchanges with the database, before or behind it or a moment later, in the middle of what it does then.
The run after it has to bring the destination to what the source is, and an appended table has to hold
each change once. The points are shared out among the databases and the faults that are asked for (all,
unless some are named). The same seed gives the same points, but for the moments of those that come late.

Prints one JSON object for each database and fault: the points, how many runs met the fault, the seconds, and what was
wrong. Exits with 1 if anything was. 400 points take some ten minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tests.faults.sql_trials import FAULTS, Trial, open_place

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Go through some points and tell of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sql_driver")
    every = sorted({fault for faults in FAULTS.values() for fault in faults})
    parser.add_argument("--points", type=int, default=40, help="how many in all; default 40")
    parser.add_argument("--seed", type=int, help="of the chance; printed, so that it can be given again")
    parser.add_argument("--place", action="append", choices=sorted(FAULTS), help="all, unless named")
    parser.add_argument("--fault", action="append", choices=every, help="all, unless named")
    asked = parser.parse_args(arguments)
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    chosen = [
        (place, fault)
        for place in asked.place or FAULTS
        for fault in FAULTS[place]
        if fault in (asked.fault or every)
    ]
    if not chosen:
        parser.error("none of these databases can meet these faults")
    well = True
    for place in dict.fromkeys(place for place, _ in chosen):
        shares = {
            fault: asked.points // len(chosen) + (index < asked.points % len(chosen))
            for index, (kind, fault) in enumerate(chosen)
            if kind == place
        }
        for told in _go_through(place, shares, seed):
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            well = well and not told["trouble"]
    return 0 if well else 1


def _go_through(place: str, shares: dict[str, int], seed: int) -> Iterator[dict[str, Any]]:
    """Go through the points of one database, fault by fault."""
    with tempfile.TemporaryDirectory(prefix="rundiff-faults-") as folder, open_place(place, folder) as opened:
        trial = Trial.begun(opened, folder, random.Random(f"{seed} {place}"))  # noqa: S311 -- chance that can be repeated
        for fault, points in shares.items():
            began, before, trouble = time.monotonic(), trial.met, list[str]()
            for number in range(1, points + 1):
                trouble += trial.point(number, fault)
            yield {
                "place": place,
                "fault": fault,
                "seed": seed,
                "points": points,
                "met": trial.met - before,
                "seconds": round(time.monotonic() - began, 1),
                "trouble": trouble,
            }


if __name__ == "__main__":
    sys.exit(main())
