"""PgBouncer in front of a PostgreSQL server, pooling transactions: Debian's program, on a free port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.servers.postgresql import PASSWORD, USER, PostgresqlServer, free_port

__all__ = ["Pooler"]

_SECONDS = 20.0
_PROGRAM = Path("/usr/sbin/pgbouncer")


class Pooler:
    """Gives each transaction whichever of a few sessions is free."""

    def __init__(self, server: PostgresqlServer) -> None:
        if not _PROGRAM.exists():
            raise RuntimeError("these tests need PgBouncer: install Debian's package pgbouncer")
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="rundiff-pgbouncer-"))
        users = self._folder / "users"
        users.write_text(f'"{USER}" "{PASSWORD}"\n')
        settings = self._folder / "settings"
        settings.write_text(
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
        self._log = self._folder / "log"
        account = "nobody" if os.geteuid() == 0 else None
        if account is not None:
            for path in (self._folder, users, settings):
                shutil.chown(path, account)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(_PROGRAM), str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=account,
                group=None if account is None else pwd.getpwnam(account).pw_gid,
                extra_groups=None if account is None else [],
                start_new_session=True,
            )
        deadline = time.monotonic() + _SECONDS
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.through(server.url), connect_timeout=2).close()
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace")[-2000:]
                self.close()
                raise RuntimeError(f"PgBouncer did not answer:\n{said}")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def through(self, url: str) -> str:
        """Give the URL of a database as it is reached through the pooler."""
        login, _, place = url.rpartition("@")
        return f"{login}@127.0.0.1:{self.port}/{place.partition('/')[2]}"

    def close(self) -> None:
        """Stop and remove everything; may be called twice."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
