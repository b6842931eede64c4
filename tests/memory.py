"""Temporary folders in memory, for runs of tests that write many thousand times through to a disk.

What tests kill are processes, and the operating system keeps every write of those: whether a byte has reached a
real disk changes no result, but waiting for it took half of the time of the whole suite.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["Memory"]

_ABOVE = Path("/dev/shm")  # noqa: S108 -- the folder in it is our own
_PREFIX = "rundiff-tests-"
_FREE_BYTES = 4 << 30
"""The suite takes up to a tenth of it; less would fail it half-way on small machines and in containers."""


class Memory:
    """A folder in memory for all temporary files of this process and of those that it starts."""

    def __init__(self) -> None:
        self.folder = _ABOVE / f"{_PREFIX}{os.getpid()}"
        self._before = os.environ.get("TMPDIR")

    @classmethod
    def take(cls) -> Memory | None:
        """Take one if there is enough memory, and if whoever started the tests did not choose (`TMPDIR`)."""
        if "TMPDIR" in os.environ or not os.access(_ABOVE, os.W_OK):
            return None
        _sweep()
        free = os.statvfs(_ABOVE)
        if free.f_bavail * free.f_frsize < _FREE_BYTES or _available() < _FREE_BYTES:
            return None
        memory = cls()
        memory.folder.mkdir()
        memory.folder.chmod(0o1777)  # as temporary folders are: servers run under accounts of their own
        os.environ["TMPDIR"] = str(memory.folder)
        tempfile.tempdir = None
        return memory

    def release(self) -> None:
        """Remove everything."""
        del os.environ["TMPDIR"]
        tempfile.tempdir = None
        shutil.rmtree(self.folder, ignore_errors=True)


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _sweep() -> None:
    """Remove what killed runs have left."""
    for folder in _ABOVE.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX)
        with contextlib.suppress(OSError):
            if pid.isdigit() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder)
