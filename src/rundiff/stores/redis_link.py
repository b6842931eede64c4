"""The connection to a Redis or Valkey: commands in bounded pipelines, tried again, errors told plainly.

Every command that is sent here may be repeated: it sets what it is to be set to, reads, or removes. So
whole pipelines are sent again after a lost connection, a failover, or a slot of a cluster that moved.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from rundiff.errors import StorageError
from rundiff.stores.redis_place import Place

__all__ = ["Command", "Link"]

PIPELINE_BYTES = 1 << 20
PIPELINE_COMMANDS = 256
PATIENT = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 2.5, 3.0)
"""Seconds between attempts: long enough for a server that is started again."""

_AGAIN = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterError,
    exceptions.RedisClusterException,
    exceptions.MovedError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    OSError,
)
_FINAL = (exceptions.AuthenticationError, exceptions.AuthorizationError)
"""Connection errors that another attempt does not mend."""


class Command(NamedTuple):
    """A command; all its keys are in the hash slot of `key`."""

    key: str
    words: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Bytes of its long words."""
        return sum(len(word) for word in self.words if isinstance(word, bytes))


class Link:
    """A client, made at the first command."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._client: Any = None

    def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def one(self, key: str, *words: Any) -> Any:
        """Send one command, and give its reply."""
        return self._batch([Command(key, words)])[0]

    def run(self, commands: Iterable[Command], *, reply_bytes: int = 0) -> Iterator[Any]:
        """Send commands in pipelines of bounded size, and yield their replies in order.

        `reply_bytes` is about what one reply takes, where that is more than the command.
        """
        batch: list[Command] = []
        size = 0
        for command in commands:
            batch.append(command)
            size += max(command.size, reply_bytes)
            if size >= PIPELINE_BYTES or len(batch) >= PIPELINE_COMMANDS:
                yield from self._batch(batch)
                batch, size = [], 0
        if batch:
            yield from self._batch(batch)

    def info(self, *sections: str) -> list[dict[str, Any]]:
        """Ask every node (of a server: the one) for sections of INFO, as one mapping each."""
        for delay in (*PATIENT, None):
            try:
                return [
                    {name: value for section in sections for name, value in node.info(section).items()}
                    for node in self._nodes()
                ]
            except _FINAL as error:
                raise self._told(error) from error
            except _AGAIN as error:
                if delay is None or _hopeless(error):
                    raise self._told(error) from error
                time.sleep(delay)
                self._look_again()
            except exceptions.RedisError as error:
                raise self._told(error) from error
        raise AssertionError  # the last attempt returns or raises

    # Sending

    def _batch(self, commands: Sequence[Command]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        waiting = list(range(len(commands)))
        for delay in (*PATIENT, None):
            failed: BaseException | None = None
            try:
                groups = self._by_node(commands, waiting)
            except _AGAIN as error:
                if isinstance(error, _FINAL):
                    raise self._told(error) from error
                groups, failed = [], error
            left = [] if failed is None else waiting
            for node, numbers in groups:
                again, problem = self._send(node, commands, numbers, replies)
                left += again
                failed = problem or failed
            if failed is None:
                return replies
            if delay is None or _hopeless(failed):
                raise self._told(failed) from failed
            waiting = sorted(left)
            time.sleep(delay)
            self._look_again()
        raise AssertionError  # the last attempt returns or raises

    def _send(
        self, node: Any, commands: Sequence[Command], numbers: list[int], replies: list[Any]
    ) -> tuple[list[int], BaseException | None]:
        """Fill in replies; give the commands to repeat, and why."""
        try:
            with node.pipeline(transaction=False) as pipeline:
                for number in numbers:
                    pipeline.execute_command(*commands[number].words)
                answers = pipeline.execute(raise_on_error=False)
        except _FINAL as error:
            raise self._told(error) from error
        except _AGAIN as error:
            return numbers, error
        again: list[int] = []
        problem: BaseException | None = None
        for number, answer in zip(numbers, answers, strict=True):
            if isinstance(answer, _FINAL) or (
                isinstance(answer, exceptions.RedisError) and not isinstance(answer, _AGAIN)
            ):
                raise self._told(answer) from answer
            if isinstance(answer, BaseException):
                again.append(number)
                problem = answer
            else:
                replies[number] = answer
        return again, problem

    def _by_node(self, commands: Sequence[Command], numbers: Sequence[int]) -> list[tuple[Any, list[int]]]:
        client = self._opened()
        if self.place.kind != "cluster":
            return [(client, list(numbers))]
        groups: dict[str, tuple[Any, list[int]]] = {}
        for number in numbers:
            node = client.nodes_manager.get_node_from_slot(client.keyslot(commands[number].key))
            groups.setdefault(node.name, (client.get_redis_connection(node), []))[1].append(number)
        return list(groups.values())

    def _nodes(self) -> list[Any]:
        client = self._opened()
        if self.place.kind != "cluster":
            return [client]
        return [client.get_redis_connection(node) for node in client.get_primaries()]

    def _look_again(self) -> None:
        """Find out anew who serves: by new connections, and a new map of the cluster."""
        self.close()

    def _opened(self) -> Any:
        if self._client is None:
            self._client = _client(self.place)
        return self._client

    def _told(self, error: BaseException) -> StorageError:
        shown = f"the signature store {self.place.shown}"
        text = " ".join(str(error).split())
        if isinstance(error, _FINAL) or text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
            return StorageError(
                f"{shown} refuses the login or a command ({text}); mend the user and password in its URL"
            )
        if isinstance(error, exceptions.OutOfMemoryError) or text.startswith("OOM"):
            return StorageError(
                f"{shown} is full ({text}); raise its maxmemory or free some, then run again. Nothing is lost"
            )
        return StorageError(
            f"{shown} can't be used ({text or type(error).__name__}); check its address and that it runs, then run "
            "again. Nothing is lost"
        )


def _hopeless(error: BaseException) -> bool:
    """Say whether an error would be the same at each attempt."""
    text = str(error)
    return "CERTIFICATE_VERIFY_FAILED" in text or "No such file or directory" in text


def _client(place: Place) -> Any:
    options: dict[str, Any] = {
        "username": place.username,
        "password": place.password,
        "socket_timeout": place.timeout,
        "socket_connect_timeout": min(place.timeout, 5.0),
    }
    # Attempts are counted here, once for all kinds of servers.
    once = Retry(NoBackoff(), 0)
    if place.kind == "socket":
        return redis.Redis(unix_socket_path=place.path, db=place.db, retry=once, **options)
    if place.tls is not None:
        options |= {"ssl": True, **place.tls}
    if place.kind == "cluster":
        from redis import cluster

        untyped: Any = cluster
        nodes = [untyped.ClusterNode(host, port) for host, port in place.hosts]
        return untyped.RedisCluster(startup_nodes=nodes, retry=once, **options)
    if place.kind == "sentinel":
        from redis import sentinel

        login = {**options, "username": None, "password": None, **place.sentinel, "retry": once}
        untyped = sentinel
        watching = untyped.Sentinel(
            list(place.hosts), sentinel_kwargs=login, db=place.db, retry=once, **options
        )
        return watching.master_for(place.service)
    host, port = place.hosts[0]
    return redis.Redis(host=host, port=port, db=place.db, retry=once, **options)
