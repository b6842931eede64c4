"""Kafka: each change is a message, keyed by the primary key, so that all changes of a key stand in order.

With transactions (the default) each batch commits together with its watermark, and readers of committed
messages see each change exactly once. Without them each change arrives at least once, under the same
idempotency key.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from rundiff.destinations.contract import Capabilities, ChangeBatch, Delivered, NotWritten, Position, Target
from rundiff.destinations.kafka_address import check_topic, parse_kafka
from rundiff.destinations.kafka_messages import Form, Messages, render
from rundiff.destinations.kinds import kind_of
from rundiff.errors import ConfigurationError, Fenced, MissingDriver, RecordsRefused
from rundiff.model import Action
from rundiff.settings import DestinationOptions

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

    from rundiff.destinations.kafka_link import Link
    from rundiff.destinations.kafka_marks import Mark, Marks
    from rundiff.destinations.kafka_sending import Failure, Sender

__all__ = ["KafkaDestination", "open_topic"]

_BATCH_RECORDS = 20_000
"""Messages are objects here, which take memory, and a transaction must not last too long."""
_LEAST_LIMIT = 1_000
"""librdkafka's least one."""
_LIMIT = 1_000_000
"""Bytes of one message where the topic's own limit can't be asked for: librdkafka's default."""


def open_topic(options: DestinationOptions) -> KafkaDestination:
    """Open the topic at `options.url`; nothing is sent before a method is called."""
    try:
        import confluent_kafka  # noqa: F401 -- asked for early, with its hint
    except ModuleNotFoundError as error:
        raise MissingDriver(
            f"A destination kafka:// needs the package {error.name}: install it with `pip install 'rundiff[kafka]'`."
        ) from error
    return KafkaDestination(options)


class _Held(msgspec.Struct):
    """What this worker holds of one sync."""

    token: int
    sender: Sender
    topic_id: str = ""
    position: Position | None = None
    """Where the mark stands; None until `claim`."""


class KafkaDestination:
    """One topic of a Kafka cluster."""

    def __init__(self, options: DestinationOptions) -> None:
        self._address = parse_kafka(options.url or "", options.kafka_options)
        check_topic(options.kafka_watermarks, "kafka_watermarks")
        if options.kafka_watermarks == self._address.topic:
            raise ConfigurationError("kafka_watermarks names the destination's own topic: name another one.")
        self._topic = self._address.topic
        self._watermarks = options.kafka_watermarks
        self._form = Form(value=options.kafka_value, tombstones=options.kafka_tombstones)
        self._transactions = options.kafka_transactions
        self._opened: tuple[Link, Marks] | None = None
        self._held: dict[str, _Held] = {}
        self._plain: Sender | None = None
        self._known_limit: int | None = None
        self.capabilities = Capabilities(
            new_action=Action.CREATE,
            transactional=self._transactions,
            upserts=True,
            wants_previous=True,
            batch_records=_BATCH_RECORDS,
        )
        """A topic takes creates: exactly once with transactions, at least once without."""

    @property
    def identity(self) -> str:
        """The brokers of the URL and the topic."""
        return self._address.identity

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse types without a JSON form, and brokers that can't be reached; creates nothing."""
        for arrow_type in (fields or {}).values():
            kind_of(arrow_type)
        if fields is None:
            with self._link.translated(f"the Kafka brokers {self._address.cluster} can't be asked"):
                self._link.topic(self._topic)

    def position(self, target: Target) -> Position | None:
        """Read the watermark; None where the topic itself is gone, or is another one of the same name."""
        if not self._transactions:
            return None
        with self._link.translated(self._unreadable):
            # Whoever holds the lease may end what a worker before left open.
            unblock = (lambda: self._ended(target)) if target.token else None
            mark = self._marks.find(self._topic, target.sync_id, unblock)
            if mark is None:
                return None
            topic = self._link.topic(self._topic)
            if topic is None:
                return mark.position if mark.sequence == 0 else None
            if mark.topic_id and topic.id and mark.topic_id != topic.id:
                return None
            return mark.position

    def strangers(self, target: Target) -> Sequence[str]:
        """Read who else left a watermark for this topic."""
        if not self._transactions:
            return ()
        with self._link.translated(self._unreadable):
            return self._marks.others(self._topic, target.sync_id)

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:
        """Give all false: a topic is not looked through."""
        return pa.array([False] * keys.num_rows, pa.bool_())

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Create the topic if it is missing, with the brokers' default partitions and replicas."""
        with self._link.translated(f"the Kafka topic {self._topic} can't be created"):
            if self._link.topic(self._topic) is None:
                self._link.create_topic(self._topic, -1, {})

    def claim(self, target: Target, start: Position) -> None:
        """Fence every worker before, and set the watermark under `target.token`."""
        if not self._transactions:
            return
        with self._link.translated(self._unreadable):
            self._marks.create()
            mark = self._marks.find(self._topic, target.sync_id, lambda: self._ended(target))
            self._refuse_claim(target, start, mark)
            held = self._fence(target)
            # Nobody but this worker can move it any more.
            mark = self._marks.find(self._topic, target.sync_id)
            self._refuse_claim(target, start, mark)
            topic = self._link.topic(self._topic)
            held.topic_id = "" if topic is None else topic.id
        position = start if mark is None or start.reaches(mark.position) else mark.position
        if mark is None or (mark.position, mark.token) != (position, target.token):
            self._commit(target, held, position)
        held.position = position

    def _refuse_claim(self, target: Target, start: Position, mark: Mark | None) -> None:
        if mark is None:
            return
        if mark.token > target.token:
            raise Fenced(
                f'A newer worker delivers "{target.sync}" to {self.identity} (token {mark.token}, this one has '
                f"{target.token}): this one stops."
            )
        if mark.token < target.token and not start.reaches(mark.position):
            raise Fenced(
                f'{self.identity} stands at run {mark.run}, sequence {mark.sequence} of "{target.sync}", past run '
                f"{start.run}, sequence {start.sequence}, where this run would go on: run again; if the home directory "
                "was restored from a backup, with --full-refresh."
            )

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:
        """Remove the watermarks of some syncs for this topic."""
        if not self._transactions or not sync_ids:
            return
        with self._link.translated(self._unreadable):
            if self._link.topic(self._watermarks) is None:
                return
            sender = self._fence(target).sender
            sender.begin()
            for sync_id in sync_ids:
                sender.put(self._watermarks, *self._marks.message(self._topic, sync_id, None))
            sender.commit()
        if target.sync_id in sync_ids:
            self._held[target.sync_id].position = None

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Send one batch: with its watermark in a transaction, or without one and with each record's outcome."""
        reached = Position(run=batch.run, sequence=batch.last_sequence)
        if not self._transactions:
            return self._deliver_plainly(target, batch, reached)
        held = self._holding(target, expected)
        parts = []
        for messages in render(target, batch, self._form):
            if (messages.sizes > self._limit).any():
                raise RecordsRefused(self._too_large)
            parts.append(messages)
        self._commit(target, held, reached, parts)
        return reached

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        """Move the watermark alone."""
        if self._transactions:
            self._commit(target, self._holding(target, expected), reached)
        return Position(run=reached.run, sequence=reached.sequence)

    def finish(self, target: Target, reached: Position) -> None:
        """Do nothing: every batch is visible once it is delivered."""

    def close(self) -> None:
        """Let go of all clients, and end a transaction that is open."""
        for sender in [*(held.sender for held in self._held.values()), *filter(None, [self._plain])]:
            sender.close()
        self._held, self._plain = {}, None
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    @property
    def _link(self) -> Link:
        return self._open()[0]

    @property
    def _marks(self) -> Marks:
        return self._open()[1]

    def _open(self) -> tuple[Link, Marks]:
        if self._opened is None:
            from rundiff.destinations.kafka_link import Link
            from rundiff.destinations.kafka_marks import Marks

            link = Link(self._address)
            self._opened = link, Marks(link, self._watermarks)
        return self._opened

    @property
    def _unreadable(self) -> str:
        return f"the watermarks of {self.identity} in the Kafka topic {self._watermarks} can't be kept"

    @property
    def _limit(self) -> int:
        if self._known_limit is None:
            given = self._address.client.get("message.max.bytes")
            told = given or self._link.settings_of(self._topic).get("max.message.bytes")
            self._known_limit = max(int(told), _LEAST_LIMIT) if told and told.isdigit() else _LIMIT
        return self._known_limit

    @property
    def _too_large(self) -> str:
        return (
            f"the message is larger than the {self._limit:,} bytes that the Kafka topic {self._topic} takes"
        )

    def _sender(self, transactional_id: str | None) -> Sender:
        from rundiff.destinations.kafka_sending import Sender

        return Sender(self._link, self._limit, transactional_id)

    def _fence(self, target: Target) -> _Held:
        """Give this worker's producer for a sync; when it is made, those of workers before can write no more."""
        held = self._held.get(target.sync_id)
        if held is None or held.token != target.token:
            self._drop(target)
            # Named after the watermarks' topic, so that one prefix can stand for both in the brokers' rules.
            held = _Held(target.token, self._sender(f"{self._watermarks}-{target.sync_id}"))
            self._held[target.sync_id] = held
        return held

    def _ended(self, target: Target) -> None:
        self._fence(target)

    def _drop(self, target: Target) -> None:
        held = self._held.pop(target.sync_id, None)
        if held is not None:
            held.sender.close()

    def _holding(self, target: Target, expected: Position) -> _Held:
        held = self._held.get(target.sync_id)
        if (
            held is None
            or held.token != target.token
            or held.position != Position(run=expected.run, sequence=expected.sequence)
        ):
            raise Fenced(
                f'The watermark of "{target.sync}" for {self.identity} is not at run {expected.run}, sequence '
                f"{expected.sequence}, where this worker left it: another one took over, so this one stops."
            )
        return held

    def _commit(self, target: Target, held: _Held, reached: Position, parts: Sequence[Messages] = ()) -> None:
        """Write messages and the mark in one transaction; after an error the sync has to be claimed anew.

        The mark is sent when all messages have arrived: whoever finds it finds them, even on brokers that show
        what was aborted.
        """
        from rundiff.destinations.kafka_marks import Mark

        sender = held.sender
        mark = Mark(
            sync=target.sync,
            run=reached.run,
            sequence=reached.sequence,
            token=target.token,
            topic_id=held.topic_id,
        )
        try:
            with self._link.translated(self._unwritten):
                sender.begin()
                for messages in parts:
                    sender.send(self._topic, messages)
                self._refuse_failures(sender.settle())
                sender.put(self._watermarks, *self._marks.message(self._topic, target.sync_id, mark))
                self._refuse_failures(sender.settle())
                sender.commit()
        except BaseException as error:
            if not (sender.abort() and isinstance(error, RecordsRefused)):
                self._drop(target)
            raise
        held.position = Position(run=reached.run, sequence=reached.sequence)

    def _refuse_failures(self, failures: Sequence[Failure]) -> None:
        """Raise what stopped messages of a transaction."""
        if not failures:
            return
        errors = [error for _, error in failures]
        if self._link.refusal(errors) is not None:
            raise RecordsRefused(self._link.refusal(errors) or "")
        raise self._link.translate(errors[0], self._unwritten)

    def _deliver_plainly(self, target: Target, batch: ChangeBatch, reached: Position) -> Position:
        """Send a batch without a transaction, and tell what became of each record."""
        if self._plain is None:
            with self._link.translated(self._unwritten):
                self._plain = self._sender(None)
        aside: list[NotWritten] = []
        try:
            for messages in render(target, batch, self._form):
                with self._link.translated(self._unwritten):
                    refused, stopped = self._send(self._plain, messages)
                aside += [NotWritten(sequence=n, error=why) for n, why in sorted(refused.items())]
                if stopped is not None:
                    at, why = stopped
                    return Delivered(
                        run=batch.run,
                        sequence=at,
                        # What is behind the place of the stop is sent again, and its outcome is told then.
                        not_written=tuple(item for item in aside if item.sequence <= at),
                        stopped=why,
                    )
        except BaseException:
            self._plain.close()
            self._plain = None
            raise
        return Delivered(run=reached.run, sequence=reached.sequence, not_written=tuple(aside))

    def _send(self, sender: Sender, messages: Messages) -> tuple[dict[int, str], tuple[int, str] | None]:
        """Send messages; gives the refused ones by sequence, and where and why delivery has to stop, if it has."""
        first = messages.first_sequence
        unfit = (messages.sizes > self._limit).nonzero()[0].tolist()
        refused = {first + row: self._too_large for row in unfit}
        fit = None if not unfit else sorted(set(range(len(messages.keys))) - set(unfit))
        sender.send(self._topic, messages, fit)
        failed = _by_row(messages, sender.settle())
        if len(failed) > 1:
            # Brokers refuse requests and not messages: each once more, alone, tells which one it was.
            for row in sorted(row for row, error in failed.items() if self._link.refusal([error])):
                sender.send(self._topic, messages, [row])
                failed.pop(row)
                failed |= _by_row(messages, sender.settle())
        lost: list[int] = []
        for row, error in failed.items():
            why = self._link.refusal([error])
            if why is None:
                lost.append(row)
            else:
                refused[first + row] = why
        if not lost:
            return refused, None
        return refused, (first + min(lost) - 1, f"{self._unwritten}: {self._link.words(failed[min(lost)])}")

    @property
    def _unwritten(self) -> str:
        return f"the Kafka topic {self._topic} can't be written"


def _by_row(messages: Messages, failures: Sequence[Failure]) -> dict[int, KafkaError]:
    """Find the records whose messages failed."""
    if not failures:
        return {}
    errors = dict(failures)
    return {row: errors[key] for row, key in enumerate(messages.keys) if key in errors}
