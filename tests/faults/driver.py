"""Crash a scenario's act at each of its steps, let it recover, and look whether anything is wrong.

Run as `python -m tests.faults.driver FOLDER SCENARIO...`: prints one JSON object a scenario, with the
number of crashes, how many of them left something else than the others, and what was wrong after each.
The acts run in forks of this process, which imports what they need but runs nothing itself, since
threads don't survive a fork; one more fork recovers and checks after each.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from rundiff.errors import RundiffError
from tests.faults.by_others import ALL
from tests.faults.steps import Steps

KILLED = ("sqlite-second", "changes")
"""Scenarios whose act is killed in earnest at each step, too."""
FAILED = ("sqlite-second", "refused", "jsonl-second", "held-deletions", "changes")
"""Scenarios in which the disk is full at each step, too."""


def forked(act: Callable[[], Any]) -> tuple[int, Any]:
    """Run in a fork; give its wait status and what it returned."""
    ours, theirs = Pipe()
    child = os.fork()
    if child == 0:
        ours.close()
        theirs.send([told(act), sorted(sys.modules)])
        os._exit(0)
    theirs.close()
    answer = modules = None
    with contextlib.suppress(EOFError), ours:
        answer, modules = ours.recv()
    _, status = os.waitpid(child, 0)
    for name in modules or ():
        # What one fork imported, the next ones find imported: most of a short run is imports.
        if name not in sys.modules:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    return status, answer


def told(act: Callable[[], Any]) -> Any:
    """Give what a function returns, or its traceback as a complaint."""
    try:
        return act()
    except BaseException:  # noqa: BLE001 - whatever it is, it has to be told
        return [traceback.format_exc()]


def failed(act: Callable[[], Any]) -> list[str]:
    """Say what is wrong with how an act failed; it may have succeeded."""
    try:
        act()
    except RundiffError as error:
        sentence = str(error)
        return [] if "run again" in sentence and "\n" not in sentence else [f"it says: {sentence}"]
    return []


def digest(folder: Path) -> bytes:
    """Tell what a crash left: the names and contents of all files."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = b"a folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).digest()
        found.update(hashlib.sha256(bytes(path.relative_to(folder))).digest() + content)
    return found.digest()


class Checker:
    """A process that does one thing after each crash."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._ours, theirs = Pipe()
        self._child = os.fork()
        if self._child == 0:
            self._ours.close()
            with contextlib.suppress(EOFError):
                while theirs.recv():
                    theirs.send(told(act))
            os._exit(0)
        theirs.close()

    def ask(self) -> Any:
        """Do it once more."""
        self._ours.send(True)
        return self._ours.recv()

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        os.waitpid(self._child, 0)


def main(name: str, folder: Path) -> None:
    """Go through all crashes of one scenario."""
    scenario = ALL[name]
    place, template, copies = folder / name, folder / f"{name}-before", folder / f"{name}-crashes"
    place.mkdir()
    copies.mkdir()
    os.environ["RUNDIFF_HOME"] = str(place / "home")
    trouble: list[str] = []
    _, said = forked(lambda: scenario.prepare(place))
    trouble += said if isinstance(said, list) else []
    shutil.copytree(place, template)

    def act(steps: Steps) -> int:
        steps.install()
        scenario.act(place)
        return steps.count

    def recover_and_check() -> list[str]:
        scenario.recover(place)
        return scenario.check(place)

    _, count = forked(lambda: act(Steps(place, copies=copies)))
    _, wrong = forked(lambda: scenario.check(place))
    trouble += [f"without a crash: {item}" for item in wrong]
    checker = Checker(recover_and_check)
    crashes = sorted(copies.iterdir())
    known: set[bytes] = set()
    for crash in crashes:
        left = digest(crash)
        if left in known:
            continue  # two steps, but between them nothing had changed
        known.add(left)
        shutil.rmtree(place)
        crash.rename(place)
        trouble += [f"crash {crash.name}: {item}" for item in checker.ask()]
    kills = range(1, count + 1) if name in KILLED and isinstance(count, int) else ()
    for at in kills:
        shutil.rmtree(place)
        shutil.copytree(template, place)
        status, _ = forked(lambda at=at: act(Steps(place, kill_at=at)))
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            trouble.append(f"kill {at}: the act was not killed")
        trouble += [f"kill {at}: {item}" for item in checker.ask()]
    fails = range(1, count + 1) if name in FAILED and isinstance(count, int) else ()
    for at in fails:
        shutil.rmtree(place)
        shutil.copytree(template, place)
        _, said = forked(lambda at=at: failed(lambda: act(Steps(place, fail_at=at))))
        trouble += [f"full disk {at}: {item}" for item in said]
        trouble += [f"full disk {at}: {item}" for item in checker.ask()]
    checker.close()
    told = {
        "scenario": name,
        "crashes": len(crashes),
        "distinct": len(known),
        "kills": len(kills),
        "trouble": trouble,
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for each in sys.argv[2:]:
        main(each, Path(sys.argv[1]))
