"""The life of a server's process: started on a free port, waited for until it answers, ended, and removed."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

__all__ = ["Closing", "ServerProcess", "free_port"]


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Closing(ABC):
    """Is closed at the end of a `with` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End and remove everything; may be called twice."""


class ServerProcess(Closing):
    """A server with a folder and a port of its own; `start` may follow `stop` and `kill` on both.

    It does not start by being made: a subclass calls `start` when its folder is ready.
    """

    name: ClassVar[str]
    """For people."""
    seconds: ClassVar[float] = 30.0
    """How long a start and an end may take."""
    pause: ClassVar[float] = 0.02
    """Seconds between two questions whether it answers."""
    stubborn: ClassVar[bool] = False
    """Whether it is started again where it ends before it answers."""

    def __init__(self, program: str | None = None) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"rundiff-{program or self.name.lower()}-"))
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Give the program and its arguments."""

    @abstractmethod
    def _answers(self) -> bool:
        """Say whether the server can be used."""

    def _options(self) -> dict[str, Any]:
        """Give further arguments of `subprocess.Popen`."""
        return {}

    def start(self) -> None:
        """Start the server and wait until it answers; nothing happens if it runs."""
        if self._process is not None:
            return
        deadline = time.monotonic() + self.seconds
        while True:
            self._process = self._spawn()
            while self._process.poll() is None:
                if self._answers():
                    return
                if time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"{self.name} did not answer in {self.seconds:.0f} s:\n{self._tail()}")
                time.sleep(self.pause)
            self._process = None
            if not self.stubborn or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self._tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Shut down in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server by SIGKILL, as a power cut would."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it at once and remove everything; may be called twice."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._options(),
            )

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(self.seconds)
            self._process = None

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
