"""A MariaDB server on a free port, from the programs of Debian's package `mariadb-server`.

As root it runs as `mysql`, the account that the package makes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymysql

from tests.servers.postgresql import free_port

__all__ = ["PASSWORD", "MariadbServer"]

USER = "rundiff"
PASSWORD = "never-show-this"  # noqa: S105 -- of servers that live as long as a test
_SECONDS = 30.0


class MariadbServer:
    """A server with a fresh data folder; `start` may follow `stop` and `kill` on the same data and port.

    Commits are written but not synced to the disk: a killed server still has them, since the operating
    system lives on.
    """

    def __init__(self) -> None:
        self._install, self._program = _program("mariadb-install-db"), _program("mariadbd")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="rundiff-mariadb-"))
        self.data = self._folder / "data"
        self.log = self._folder / "server.log"
        self._temporary = self._folder / "tmp"
        self.data.mkdir()
        self._temporary.mkdir()
        self._setup = self._folder / "setup.sql"
        self._setup.write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        if _account() is not None:
            for path in (self._folder, self.data, self._temporary, self._setup):
                shutil.chown(path, "mysql")
        done = subprocess.run(
            [
                *(self._install, "--no-defaults", f"--datadir={self.data}", "--skip-test-db"),
                *([f"--user={_account()}"] if _account() else []),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db failed: {done.stderr or done.stdout}")
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL of the database `mysql`, with user and password."""
        return self.database_url("mysql")

    def database_url(self, name: str) -> str:
        """The URL of a database of this server."""
        return f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def connect(self, database: str | None = None, **options: Any) -> Any:
        """Open a connection with standard quotes."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            database=database,
            charset="utf8mb4",
            autocommit=True,
            sql_mode="ANSI_QUOTES,STRICT_ALL_TABLES",
            connect_timeout=2,
            **options,
        )

    def create_database(self) -> str:
        """Make an empty database under a name of its own; gives its URL."""
        name = f"db_{uuid.uuid4().hex[:12]}"
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}"')
        return self.database_url(name)

    def drop_connections(self) -> int:
        """End every connection of others from the server's side; gives their number."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND user = %s",
                (USER,),
            )
            found = [row[0] for row in cursor.fetchall()]
            for number in found:
                with contextlib.suppress(pymysql.err.Error):  # it may have ended meanwhile
                    cursor.execute("KILL CONNECTION %s", (number,))
        return len(found)

    def start(self) -> None:
        """Start the server and wait until it answers; nothing happens if it runs."""
        if self._process is not None:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._program, "--no-defaults", f"--datadir={self.data}", f"--port={self.port}"),
                    *("--bind-address=127.0.0.1", f"--socket={self._folder}/socket"),
                    *(f"--init-file={self._setup}", f"--pid-file={self._folder}/pid"),
                    # A server that starts removes the temporary tables that it finds in this folder, those
                    # of another server that runs along as well, which crashes it.
                    *(f"--tmpdir={self._temporary}", "--innodb-buffer-pool-size=64M"),
                    *("--innodb-flush-log-at-trx-commit=2", "--skip-log-bin", "--skip-name-resolve"),
                    *([f"--user={_account()}"] if _account() else []),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + _SECONDS
        while True:
            with contextlib.suppress(pymysql.err.Error):
                self.connect().close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"MariaDB did not start:\n{self._tail()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Shut down in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server by SIGKILL, as a power cut would."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it at once and remove everything; may be called twice."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_SECONDS)
            self._process = None

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


def _account() -> str | None:
    return "mysql" if os.geteuid() == 0 else None


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise RuntimeError("these tests need MariaDB: install Debian's package mariadb-server")
    return found
