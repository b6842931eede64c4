"""Watermarks in Kafka: how far each sync's deliveries to a topic came, kept in a compacted topic beside it.

A mark is a message whose key names topic and sync, `{"topic": …, "sync_id": …}`, and whose value holds run,
sequence and token. It is written in the transaction that writes a batch, so a reader of committed messages
finds it exactly when it finds the batch; compaction keeps the last mark of each key (docs/decisions/0015).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # re-exported without saying so

from rundiff.destinations.contract import Position
from rundiff.destinations.kafka_link import Link
from rundiff.errors import ConfigurationError, DestinationError

__all__ = ["Mark", "Marks"]

_SETTINGS = {
    "cleanup.policy": "compact",
    # The open segment is never compacted: with small ones a reader of all marks has little to read.
    "segment.bytes": str(8 << 20),
    "segment.ms": str(24 * 3600 * 1000),
}
_READING = {
    "group.id": "rundiff",
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
    "fetch.wait.max.ms": 20,
}


class _Key(msgspec.Struct, frozen=True):
    topic: str
    sync_id: str


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far one sync came on one topic, and under which token."""

    sync: str
    run: int
    sequence: int
    token: int
    topic_id: str = ""
    """Which topic of this name it was; empty where the brokers tell no ids."""

    @property
    def position(self) -> Position:
        """The position."""
        return Position(run=self.run, sequence=self.sequence)


class Marks(msgspec.Struct):
    """The marks in one topic, read once and then kept up."""

    link: Link
    name: str
    _consumer: Consumer | None = None
    _found: dict[_Key, Mark] | None = None
    _next: dict[int, int] | None = None

    def create(self) -> None:
        """Make the topic for the marks, or refuse one that forgets."""
        if self.link.topic(self.name) is None:
            self.link.create_topic(self.name, 1, _SETTINGS)
        policy = self.link.settings_of(self.name).get("cleanup.policy", "compact")
        if "compact" not in policy or "delete" in policy:
            raise ConfigurationError(
                f"The Kafka topic {self.name}, which keeps the watermarks, has cleanup.policy={policy} and would "
                "forget them: set it to compact, or name another topic by kafka_watermarks."
            )

    def find(self, topic: str, sync_id: str, unblock: Callable[[], None] | None = None) -> Mark | None:
        """Give the mark of a sync on a topic; None if it left none."""
        return self._read(unblock).get(_Key(topic, sync_id))

    def others(self, topic: str, sync_id: str) -> list[str]:
        """Give the ids of the other syncs that left a mark on a topic, sorted."""
        return sorted(
            key.sync_id for key in self._read(None) if key.topic == topic and key.sync_id != sync_id
        )

    def message(self, topic: str, sync_id: str, mark: Mark | None) -> tuple[bytes, bytes | None]:
        """Give the key and value that set a mark, or remove it."""
        return msgspec.json.encode(_Key(topic, sync_id)), None if mark is None else msgspec.json.encode(mark)

    def close(self) -> None:
        """Let go of the consumer."""
        consumer, self._consumer = self._consumer, None
        self._found = self._next = None
        if consumer is not None:
            consumer.close()

    def _read(self, unblock: Callable[[], None] | None) -> dict[_Key, Mark]:
        """Read what was committed until now.

        A transaction that is open hides what was committed behind its beginning. That of a worker which died
        stays open until it times out; `unblock` ends it at once where it is this sync's own.
        """
        there = self.link.topic(self.name)
        if there is None:
            return {}
        if self._consumer is None or self._found is None or self._next is None:
            self._consumer, self._found, self._next = self.link.consumer(_READING), {}, {}
        ends = self._ends(there.partitions)
        waiting = {number: end for number, end in ends.items() if end > 0}
        until = time.monotonic() + self.link.address.transaction_seconds + self.link.seconds
        while waiting:
            seen = self._advance(self._consumer, list(waiting))
            waiting = {number: end for number, end in waiting.items() if seen.get(number, 0) < end}
            self.link.raise_denied()
            if waiting and unblock is not None:
                unblock()
                unblock = None
            elif waiting and time.monotonic() > until:
                raise DestinationError(
                    f"The watermarks in the Kafka topic {self.name} can't be read: a transaction of another worker "
                    "stays open. Run again when its delivery has ended."
                )
        return self._found

    def _ends(self, partitions: tuple[int, ...]) -> dict[int, int]:
        """Give the end of each partition, behind what open transactions wrote."""
        asked = {TopicPartition(self.name, number): OffsetSpec.latest() for number in partitions}  # type: ignore[no-untyped-call]
        futures = self.link.admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=self.link.seconds
        )
        return {place.partition: future.result().offset for place, future in futures.items()}

    def _advance(self, consumer: Consumer, partitions: list[int]) -> dict[int, int]:
        """Read each partition as far as it shows; gives the offsets where it ended."""
        assert self._found is not None  # noqa: S101 -- `_read` made both
        assert self._next is not None  # noqa: S101 -- as above
        consumer.assign(
            [TopicPartition(self.name, number, self._next.get(number, 0)) for number in partitions]
        )
        ended: dict[int, int] = {}
        until = time.monotonic() + self.link.seconds
        while len(ended) < len(partitions):
            message = consumer.poll(0.2)
            self.link.raise_denied()
            if message is None:
                if time.monotonic() > until:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                continue
            error, number, offset = message.error(), message.partition() or 0, message.offset() or 0
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                ended[number] = self._next[number] = offset
                continue
            until = time.monotonic() + self.link.seconds
            self._next[number] = offset + 1
            self._take(message.key() or b"", message.value())
        return ended

    def _take(self, key: bytes, value: bytes | None) -> None:
        """Note one mark, or that it was removed."""
        assert self._found is not None  # noqa: S101 -- `_read` made it
        try:
            known = msgspec.json.decode(key, type=_Key)
            if value is None:
                self._found.pop(known, None)
            else:
                self._found[known] = msgspec.json.decode(value, type=Mark)
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                f"The Kafka topic {self.name} holds messages that are no watermarks: name another topic by "
                "kafka_watermarks, for watermarks alone."
            ) from error
