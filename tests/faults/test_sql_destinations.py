"""Deliveries into databases that are broken off anywhere: afterwards each change has landed once.

A short sample: `python -m tests.faults.sql_driver --points 400` goes through hundreds of points by the same code.
"""

from __future__ import annotations

import json
import subprocess
import sys

from tests.faults.sql_trials import FAULTS

PLACES = ("postgresql", "mariadb", "sqlite", "duckdb")


def test_each_change_lands_once() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.faults.sql_driver", "--points", "12", "--seed", "1"),
            *(part for place in PLACES for part in ("--place", place)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    told = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = [(place, fault, []) for place in PLACES for fault in FAULTS[place]]
    assert [(each["place"], each["fault"], each["trouble"]) for each in told] == wanted
    assert sum(each["points"] for each in told) == 12
    assert sum(each["met"] for each in told) >= 11, "hardly a run met its fault"
