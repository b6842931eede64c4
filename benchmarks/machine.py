"""Where and with what a table was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

__all__ = ["described", "missing", "versions"]


def described() -> list[str]:
    """Give lines on the processor, memory, system and load."""
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return [
        f"{_processor()}, {cores} cores, {_memory() / 2**30:.0f} GiB of memory",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"load of the machine before it began: {load:.1f}",
        f"Rundiff at commit {_commit()}, signer: {_signer()}",
    ]


def versions(packages: Iterable[str]) -> list[str]:
    """Give `name version` of installed distributions, each once, sorted."""
    return [f"{name} {metadata.version(name)}" for name in sorted(set(packages))]


def missing(packages: Iterable[str]) -> list[str]:
    """Give the distributions that are not installed."""
    absent = []
    for name in sorted(set(packages)):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
    return absent


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _commit() -> str:
    try:
        commit = _output("git", "rev-parse", "--short", "HEAD")
        changed = _output("git", "status", "--porcelain", "--", "src", "native")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + (" with changes" if changed else "")


def _signer() -> str:
    return _output(sys.executable, "-c", "from rundiff.signing import signer_name as n; print(n())")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - fixed commands
