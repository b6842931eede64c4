"""Clients of one Kafka cluster: their settings, what they know of topics, and the words for their errors."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from rundiff.destinations.kafka_address import KafkaAddress
from rundiff.errors import ConfigurationError, DestinationError, Fenced

__all__ = ["Link", "Topic", "patiently"]

log = logging.getLogger("rundiff.kafka")
log.addHandler(logging.NullHandler())

_ANSWER_SECONDS = 10.0
"""How long to wait at most for what the brokers know."""
_SLICE = 0.5
"""Seconds that a call into the client may last, during which Ctrl-C is not heard."""
_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
_DENIED = (
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError._SSL,
)
_FORBIDDEN = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)
_SILENT = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
)
_NO_TRANSACTIONS = (
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)
_REFUSED = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.POLICY_VIOLATION,
)
"""What a broker says of a record, which no repeat mends."""
_PROPERTY = re.compile(r'configuration property[: ]+"([A-Za-z0-9._]+)"')


class Topic(msgspec.Struct, frozen=True):
    """What the cluster says of a topic that is there."""

    id: str
    """Another one after the topic was deleted and created again; empty where the brokers tell none."""
    partitions: tuple[int, ...]


@dataclass(slots=True)
class _Complaints:
    """What the clients' threads complain of; most of it they mend themselves.

    It knows no client: one that is let go of ends at once, and not when a cycle is collected.
    """

    password: str | None = field(repr=False)
    trouble: str | None = None
    denied: str | None = None
    """Why the brokers won't have this client."""

    def note(self, error: KafkaError) -> None:
        """Remember an error."""
        if error.code() in _DENIED:
            self.denied = self.hushed(error)
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.trouble = self.hushed(error)

    def hushed(self, error: KafkaError) -> str:
        """Bring a client's message to one line without the password."""
        text = " ".join(error.str().split()).removesuffix(".")
        return text.replace(self.password, "…") if self.password else text


class Link:
    """The clients of one destination; each is made when it is first needed."""

    def __init__(self, address: KafkaAddress) -> None:
        self.address = address
        self.seconds = min(_ANSWER_SECONDS, address.patience)
        """How long to wait for an answer."""
        self._admin: AdminClient | None = None
        self._complaints = _Complaints(address.client.get("sasl.password"))

    @property
    def admin(self) -> AdminClient:
        """The client for questions."""
        if self._admin is None:
            self._admin = self._made(AdminClient, {})
        return self._admin

    def consumer(self, settings: Mapping[str, Any]) -> Consumer:
        """Make a consumer; the caller closes it."""
        made: Consumer = self._made(Consumer, settings)
        return made

    def producer(self, settings: Mapping[str, Any]) -> Producer:
        """Make a producer."""
        made: Producer = self._made(Producer, settings)
        return made

    def _made(self, kind: Callable[..., Any], settings: Mapping[str, Any]) -> Any:
        own = {"client.id": "rundiff", "log_level": 5, "error_cb": self._complaints.note}
        given = {**own, **settings, **self.address.client}
        try:
            return kind(given, logger=log)
        except KafkaException as error:
            # The client's own words may hold the value of the property.
            named = _PROPERTY.search(str(error.args[0]))
            what = (
                f"its property {named[1]}" if named else "its properties, of which security is the likeliest"
            )
            raise ConfigurationError(
                f"A Kafka client for {self.address.cluster} can't be made: {what}, in kafka_options or the URL, has a "
                "name or a value that it does not know."
            ) from error

    def raise_denied(self) -> None:
        """Raise `DestinationError` if the brokers won't have this client, which no patience mends."""
        if self._complaints.denied is not None:
            raise DestinationError(
                f"The Kafka brokers {self.address.cluster} refuse the connection: {self._complaints.denied}. Mend "
                "user, password or security, then run again."
            )

    def topic(self, name: str) -> Topic | None:
        """Ask for a topic without making the brokers create it; None where there is none."""
        future = self.admin.describe_topics(
            TopicCollection([name]), request_timeout=self.seconds, include_authorized_operations=False
        )[name]
        try:
            told = self._awaited(future)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise
        identity = "" if told.topic_id is None else str(told.topic_id)
        return Topic(identity, tuple(sorted(each.id for each in told.partitions)))

    def settings_of(self, name: str) -> Mapping[str, str]:
        """Give the settings of a topic; none where the user may not see them."""
        resource = ConfigResource(ResourceType.TOPIC, name)
        future = self.admin.describe_configs([resource], request_timeout=self.seconds)[resource]
        try:
            found = self._awaited(future)
        except KafkaException:
            return {}
        return {key: entry.value for key, entry in found.items() if entry.value is not None}

    def create_topic(self, name: str, partitions: int, settings: Mapping[str, str]) -> None:
        """Create a topic, replicated as the brokers do by default; does nothing where there is one."""
        new = NewTopic(name, num_partitions=partitions, replication_factor=-1, config=dict(settings))
        future = self.admin.create_topics([new], request_timeout=self.seconds)[name]
        try:
            self._awaited(future)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        # Brokers learn of a new topic one after another.
        until = time.monotonic() + self.seconds
        while self.topic(name) is None and time.monotonic() < until:
            time.sleep(0.05)

    def _awaited(self, future: Any) -> Any:
        """Wait for an answer, hearing Ctrl-C and refusals meanwhile."""
        from concurrent.futures import TimeoutError as Late

        until = time.monotonic() + self.seconds + 1
        while True:
            self.admin.poll(0)
            self.raise_denied()
            try:
                return future.result(0.2)
            except Late:
                if time.monotonic() > until:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turn the client's exceptions into Rundiff's; `doing` is what failed, as in `topic X can't be written`."""
        try:
            yield
        except KafkaException as error:
            raise self.translate(error.args[0], doing) from error

    def translate(self, error: KafkaError, doing: str) -> DestinationError:
        """Say what an error means, and what to do."""
        code, said = error.code(), self._complaints.hushed(error)
        if code in _FENCED:
            return Fenced(
                f"{self.address.identity}: another worker took over for this sync, or a transaction lasted longer than "
                f"{self.address.transaction_seconds:g} seconds, so this one stops ({said}). Run again; if it is the "
                "time, with a smaller batch_size, or with more transaction.timeout.ms in kafka_options."
            )
        if code in _NO_TRANSACTIONS:
            return DestinationError(
                f"{doing}: {said}. The brokers have no transactions, or forbid them to this user: allow them, or give "
                "exactly once up with kafka_transactions = false."
            )
        if code in _FORBIDDEN:
            return DestinationError(f"{doing}: {said}. Give the user what it lacks, then run again.")
        self.raise_denied()
        return DestinationError(
            f"{doing}: {self.words(error)}. Mend it, then run again: delivery goes on where it stopped."
        )

    def words(self, error: KafkaError) -> str:
        """Say what an error is; where nobody answered, what the client complained of last."""
        if error.code() not in _SILENT:
            return self._complaints.hushed(error)
        trouble = self._complaints.trouble
        return f"no answer came in time; the last trouble: {trouble}" if trouble else "no answer came in time"

    def refusal(self, errors: Sequence[KafkaError]) -> str | None:
        """Give the first of some errors that is about a record itself, in words; None if none is."""
        return next(
            (f"the broker refuses it: {self._complaints.hushed(e)}" for e in errors if e.code() in _REFUSED),
            None,
        )


def patiently(call: Callable[[float], Any], seconds: float) -> Any:
    """Repeat a call of a transactional producer while its error is one to wait for, at most for some seconds.

    The client goes on with the same request, however often it is called.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return call(_SLICE)
        except KafkaException as error:
            known: KafkaError = error.args[0]
            if not known.retriable() or time.monotonic() > until:
                raise
