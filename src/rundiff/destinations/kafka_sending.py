"""Send messages through an idempotent producer, in transactions or without, and learn what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message

from rundiff.destinations.kafka_link import Link, patiently
from rundiff.destinations.kafka_messages import Messages

__all__ = ["Failure", "Sender"]

_WAIT = 0.2
_ABORT_SECONDS = 2.0
_DEFAULTS = {
    "partitioner": "murmur2_random",  # Java's: topics with the same keys can be joined partition by partition
    "linger.ms": 20,
}
_FIXED = {"enable.idempotence": True, "acks": "all", "delivery.report.only.error": True}

Failure = tuple[bytes, KafkaError]
"""The key of a message that was not written, or may not have been, and why."""


class Sender:
    """One producer; with a transactional id it fences its predecessors when it is made.

    `limit` is the most bytes of one message.
    """

    def __init__(self, link: Link, limit: int, transactional_id: str | None = None) -> None:
        self._link = link
        self._patience = link.address.patience
        self._failures = failures = list[Failure]()
        self._transactional = transactional_id is not None
        self._open = False

        def report(error: KafkaError, message: Message) -> None:
            # Bound to the list alone: a producer that is let go of ends at once.
            failures.append((message.key() or b"", error))

        own: dict[str, Any] = {**_DEFAULTS, **_FIXED, "on_delivery": report, "message.max.bytes": limit}
        own["message.timeout.ms"] = int(link.address.patience * 1000)
        if transactional_id is not None:
            own["transactional.id"] = transactional_id
            own["transaction.timeout.ms"] = int(link.address.transaction_seconds * 1000)
        self._producer = link.producer(own)
        if self._transactional:
            patiently(self._producer.init_transactions, self._patience)

    def begin(self) -> None:
        """Begin a transaction."""
        self._producer.begin_transaction()
        self._open = True

    def commit(self) -> None:
        """Commit the transaction; after an error nobody knows whether it was, unless `abort` succeeds."""
        patiently(self._producer.commit_transaction, self._patience)
        self._open = False

    def abort(self) -> bool:
        """Abort the transaction if one is open; says whether nothing of it will ever be seen."""
        if not self._open:
            return True
        self._open = False
        try:
            patiently(self._producer.abort_transaction, min(_ABORT_SECONDS, self._patience))
        except KafkaException:
            return False
        return True

    def send(self, topic: str, messages: Messages, rows: Sequence[int] | None = None) -> None:
        """Hand messages to the client, all or some of them; `settle` waits for their outcome."""
        chosen = range(len(messages.keys)) if rows is None else rows
        keys, values = messages.keys, messages.values
        sequences, identities = messages.sequences, messages.idempotency_keys
        for row in chosen:
            headers = [
                *messages.headers,
                ("rundiff.sequence", sequences[row]),
                ("rundiff.idempotency_key", identities[row]),
            ]
            self._put(topic, keys[row], values[row], headers)
            if messages.tombstones:
                self._put(topic, keys[row], None, headers)

    def put(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Hand one message without headers to the client."""
        self._put(topic, key, value, [])

    def _put(self, topic: str, key: bytes, value: bytes | None, headers: list[Any]) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, headers=headers)
            except BufferError:
                # The client's queue is full: wait until some of it is gone.
                self._producer.poll(_WAIT)
                self._link.raise_denied()
            else:
                return

    def settle(self) -> list[Failure]:
        """Wait until each message was written or given up; gives those that were not written."""
        while self._producer.flush(_WAIT):
            self._link.raise_denied()
        failures = list(self._failures)
        self._failures.clear()
        return failures

    def close(self) -> None:
        """Let go of everything; a message that is under way may still arrive."""
        self.abort()
        self._producer.purge()
        self._producer.flush(0)
