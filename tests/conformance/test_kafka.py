"""Kafka topics against the one suite of destinations, with transactions and without."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.servers.kafka import KafkaServer

from rundiff.destinations import open_destination
from rundiff.settings import DestinationOptions
from rundiff.testing.destinations import DestinationSuite, Harness
from rundiff.testing.harness import Trial


def harness_of(server: KafkaServer, **options: Any) -> Harness:
    url = server.url()
    topic = url.rpartition("/")[2]
    # A watermarks' topic for each test: all of them use one sync.
    given = DestinationOptions(url=url, kafka_watermarks=f"{topic}-watermarks", **options)

    def changes() -> list[dict[str, Any]]:
        found = []
        for message in server.read(topic):
            headers = dict(message.headers() or [])
            value = message.value()
            found.append(
                {
                    "sequence": int(headers["rundiff.sequence"] or b""),
                    "action": (headers["rundiff.action"] or b"").decode(),
                    "primary_key": json.loads(message.key() or b""),
                    "data": None if value is None else json.loads(value)["data"],
                }
            )
        return sorted(found, key=lambda change: change["sequence"])

    return Harness(open=lambda: open_destination(given), changes=changes)


class TestTransactions(DestinationSuite):
    """Each batch with its watermark in one transaction."""

    @pytest.fixture
    def harness(self, kafka_server: KafkaServer) -> Harness:
        return harness_of(kafka_server)

    def refusal(self) -> list[dict[str, Any]]:
        """The sixth message is too large."""
        return [{"id": n, "v": "x" * (1_200_000 if n == 5 else 1)} for n in range(8)]


class TestWithoutTransactions(Trial):
    """At least once; what messages look like is the same, so a part of the suite is enough."""

    @pytest.fixture
    def harness(self, kafka_server: KafkaServer) -> Harness:
        return harness_of(kafka_server, kafka_transactions=False)

    test_positions = DestinationSuite.test_deliver_gives_the_position_reached
    test_advance = DestinationSuite.test_advance_writes_nothing
    test_slices = DestinationSuite.test_sliced_batches_deliver_their_part
