"""Deliveries into servers that are broken off anywhere: afterwards each change has landed once.

`python -m tests.faults.sql_driver` goes through hundreds of points by the same code.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
@pytest.mark.parametrize(("fault", "points"), [("process", 12), ("connection", 8), ("server", 3)])
def test_each_change_lands_once(tmp_path: Path, server: str, fault: str, points: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.sql_driver", str(tmp_path), server, fault, str(points)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["trouble"] == []
    assert told["met"] >= points - 1, "hardly a run met its fault"
