"""PgBouncer in front of a PostgreSQL server, pooling transactions: Debian's program, on a free port."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from tests.servers.postgresql import PASSWORD, USER, PostgresqlServer, under_account
from tests.servers.process import ServerProcess

__all__ = ["Pooler"]

_PROGRAM = Path("/usr/sbin/pgbouncer")


class Pooler(ServerProcess):
    """Gives each transaction whichever of a few sessions is free."""

    name = "PgBouncer"
    seconds = 20.0

    def __init__(self, server: PostgresqlServer) -> None:
        if not _PROGRAM.exists():
            raise RuntimeError("these tests need PgBouncer: install Debian's package pgbouncer")
        super().__init__()
        self._server = server
        users = self.folder / "users"
        users.write_text(f'"{USER}" "{PASSWORD}"\n')
        self._settings = self.folder / "settings"
        self._settings.write_text(
            f"""
            [databases]
            * = host=127.0.0.1 port={server.port}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = scram-sha-256
            auth_file = {users}
            pool_mode = transaction
            default_pool_size = 3
            server_round_robin = 1
            """.replace("            ", "")
        )
        if os.geteuid() == 0:
            for path in (self.folder, users, self._settings):
                shutil.chown(path, "nobody")
        self.start()

    def _command(self) -> list[str]:
        return [str(_PROGRAM), str(self._settings)]

    def _options(self) -> dict[str, Any]:
        return under_account()

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.through(self._server.url), connect_timeout=2).close()
            return True
        return False

    def through(self, url: str) -> str:
        """Give the URL of a database as it is reached through the pooler."""
        login, _, place = url.rpartition("@")
        return f"{login}@127.0.0.1:{self.port}/{place.partition('/')[2]}"

    def close(self) -> None:
        """Stop and remove everything; may be called twice."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._end(signal.SIGINT)
        super().close()
