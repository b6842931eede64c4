"""Whole runs into Kafka: what is refused, what Debezium's readers get, and what stops a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tests.servers.kafka import KafkaServer

from rundiff.api import Sync
from rundiff.errors import ConfigurationError, DestinationLost


def sync(url: str, rows: Any, **options: Any) -> Sync:
    return Sync(rows, "id", name="s", destination=url, max_delete_percent=100, **options)


def topic_of(url: str) -> str:
    return url.rpartition("/")[2]


@pytest.mark.parametrize("transactions", [True, False])
def test_a_message_that_is_too_large_is_set_aside_and_the_others_arrive(
    kafka_server: KafkaServer, transactions: bool
) -> None:
    url, small = kafka_server.url(), {"message.max.bytes": "2000"}
    rows = [{"id": n, "v": "x" * (3000 if n == 3 else 10)} for n in range(8)]
    given = {"kafka_transactions": transactions, "kafka_value": "record"}
    flow = sync(url, rows, kafka_options=small, **given)
    result = flow.run()
    assert (result.counts.written, result.counts.failed) == (7, 1)
    assert [entry.status for entry in flow.history({"id": 3})] == ["failed"]
    again = sync(url, rows, **given).run()
    assert (again.counts.written, again.counts.failed) == (1, 0)
    found = [json.loads(message.value() or b"") for message in kafka_server.read(topic_of(url))]
    assert sorted(found, key=lambda row: row["id"]) == rows


def test_debezium_events_of_one_key_stand_in_their_order(kafka_server: KafkaServer) -> None:
    url = kafka_server.url()
    first, second = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}], [{"id": 1, "v": "A"}, {"id": 2, "v": "b"}]
    for rows in (first, second, second[1:]):
        sync(url, rows, kafka_value="debezium").run()
    ours = [m for m in kafka_server.read(topic_of(url)) if m.key() == b'{"id":1}']
    events = [None if m.value() is None else json.loads(m.value() or b"") for m in ours]
    assert [event and (event["op"], event["before"], event["after"]) for event in events] == [
        ("c", None, {"id": 1, "v": "a"}),
        ("u", None, {"id": 1, "v": "A"}),
        ("d", {"id": 1, "v": "A"}, None),
        None,
    ]
    assert dict(ours[3].headers() or [])["rundiff.action"] == b"delete"
    assert len({m.partition() for m in ours}) == 1


def test_a_topic_of_other_messages_keeps_no_watermarks(kafka_server: KafkaServer) -> None:
    url, other = kafka_server.url(), topic_of(kafka_server.url())
    producer = Producer({"bootstrap.servers": kafka_server.broker})
    producer.produce(other, b"something else", b"k")
    assert producer.flush(10) == 0
    with pytest.raises(ConfigurationError, match="no watermarks"):
        sync(url, [{"id": 1}], kafka_watermarks=other).run()
    assert kafka_server.read(topic_of(url)) == []


def test_a_topic_that_was_created_anew_is_told_from_the_one_that_was_written(
    kafka_server: KafkaServer,
) -> None:
    url = kafka_server.url()
    sync(url, [{"id": 1}]).run()
    admin = AdminClient({"bootstrap.servers": kafka_server.broker})
    admin.delete_topics([topic_of(url)])[topic_of(url)].result(10)
    admin.create_topics([NewTopic(topic_of(url), num_partitions=1)])[topic_of(url)].result(10)
    with pytest.raises(DestinationLost, match="--full-refresh"):
        sync(url, [{"id": 1}, {"id": 2}]).run()
    sync(url, [{"id": 1}, {"id": 2}], full_refresh=True).run()
    assert sorted(message.key() or b"" for message in kafka_server.read(topic_of(url))) == [
        b'{"id":1}',
        b'{"id":2}',
    ]
    assert sync(url, [{"id": 1}, {"id": 2}]).run().counts.unchanged == 2


def test_ctrl_c_ends_a_run_whose_broker_is_silent(home: Path, tmp_path: Path) -> None:
    with KafkaServer() as server:
        url = server.url("people")
        source = tmp_path / "people.csv"
        source.write_text("id\n" + "".join(f"{n}\n" for n in range(1500)))
        command = [sys.executable, "-m", "rundiff", "sync", str(source), "--key", "id", "--to", url]
        process = subprocess.Popen(
            [*command, "--home", str(home), "--batch-size", "10"],
            env={**os.environ, "PYTHONWARNINGS": "ignore"}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while server.count("people") < 50:
            time.sleep(0.005)
        server.freeze()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        server.thaw()
        assert time.monotonic() - began < 15
        assert process.returncode == 130
        assert "the next run first delivers the" in said
        assert (
            subprocess.run([*command, "--home", str(home)], check=False, capture_output=True).returncode == 0
        )
        keys = [json.loads(message.key() or b"")["id"] for message in server.read("people")]
        assert sorted(set(keys)) == list(range(1500))
