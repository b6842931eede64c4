"""A MariaDB server on a free port, from the programs of Debian's package `mariadb-server`.

As root it runs as `mysql`, the account that the package makes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from typing import Any

import pymysql

from tests.servers.process import ServerProcess

__all__ = ["PASSWORD", "MariadbServer"]

USER = "rundiff"
PASSWORD = "never-show-this"  # noqa: S105 -- of servers that live as long as a test


class MariadbServer(ServerProcess):
    """A server with a fresh data folder; `start` may follow `stop` and `kill` on the same data and port.

    Commits are written but not synced to the disk: a killed server still has them, since the operating
    system lives on.
    """

    name = "MariaDB"
    pause = 0.05

    def __init__(self) -> None:
        super().__init__()
        self._install, self._program = _program("mariadb-install-db"), _program("mariadbd")
        self.data = self.folder / "data"
        self._temporary = self.folder / "tmp"
        self.data.mkdir()
        self._temporary.mkdir()
        self._setup = self.folder / "setup.sql"
        self._setup.write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        if _account() is not None:
            for path in (self.folder, self.data, self._temporary, self._setup):
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

    def _command(self) -> list[str]:
        return [
            *(self._program, "--no-defaults", f"--datadir={self.data}", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", f"--socket={self.folder}/socket"),
            *(f"--init-file={self._setup}", f"--pid-file={self.folder}/pid"),
            # A server that starts removes the temporary tables that it finds in this folder, those
            # of another server that runs along as well, which crashes it.
            *(f"--tmpdir={self._temporary}", "--innodb-buffer-pool-size=64M"),
            *("--innodb-flush-log-at-trx-commit=2", "--skip-log-bin", "--skip-name-resolve"),
            *([f"--user={_account()}"] if _account() else []),
        ]

    def _options(self) -> dict[str, Any]:
        return {"start_new_session": True}

    def _answers(self) -> bool:
        with contextlib.suppress(pymysql.err.Error):
            self.connect().close()
            return True
        return False


def _account() -> str | None:
    return "mysql" if os.geteuid() == 0 else None


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise RuntimeError("these tests need MariaDB: install Debian's package mariadb-server")
    return found
