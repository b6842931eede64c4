"""Deliveries to Kafka that are broken off: nothing is lost, and what comes twice carries the same key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from rundiff.api import Sync
from rundiff.errors import DestinationError, DestinationLost
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port
from tests.servers.seaweed import SeaweedServer
from tests.servers.valkey import CuttingProxy

PEOPLE = 300
Rows = dict[int, str]


def people(count: int = PEOPLE) -> list[dict[str, Any]]:
    return [{"id": i, "v": f"v{i}"} for i in range(count)]


def replayed(messages: list[Message]) -> Rows:
    """Apply the messages in their order; one idempotency key means one change, however often it came."""
    state: Rows = {}
    first: dict[bytes, tuple[bytes | None, bytes | None]] = {}
    for message in messages:
        key = dict(message.headers() or [])["rundiff.idempotency_key"] or b""
        assert first.setdefault(key, (message.key(), message.value())) == (message.key(), message.value())
        value, name = message.value(), json.loads(message.key() or b"")["id"]
        if value is None:
            state.pop(name, None)
        else:
            state[name] = json.loads(value)["data"]["v"]
    return state


def expected(rows: list[dict[str, Any]]) -> Rows:
    return {row["id"]: row["v"] for row in rows}


def repeats(messages: list[Message]) -> int:
    keys = [dict(message.headers() or [])["rundiff.idempotency_key"] for message in messages]
    return len(keys) - len(set(keys))


def sync(url: str, rows: Any, home: Path, **options: Any) -> Any:
    given = {"batch_size": 50, "max_delete_percent": 100, **options}
    return Sync(rows, "id", name="s", destination=url, home=home, **given).run()


def topic_of(url: str) -> str:
    return url.rpartition("/")[2]


def wait_for(server: KafkaServer, url: str, messages: int) -> None:
    until = time.monotonic() + 30
    while server.count(topic_of(url)) < messages:
        assert time.monotonic() < until, "no messages came"
        time.sleep(0.005)


@pytest.mark.parametrize(("transactions", "size"), [(True, 20), (False, 10)])
def test_a_broker_that_is_killed_and_started_again_loses_nothing(
    seaweed_server: SeaweedServer, home: Path, transactions: bool, size: int
) -> None:
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(sync(url, people(), home, kafka_transactions=transactions, batch_size=size))
        except DestinationError as error:
            ended.append(error)

    listening = free_port()
    url = f"kafka://127.0.0.1:{listening}/t{listening}"
    keeper = KafkaServer(listening, seaweed_server)
    with keeper as server, CuttingProxy(server.port, listening) as proxy:
        thread = threading.Thread(target=run)
        thread.start()
        until = time.monotonic() + 30
        # Read and not counted: kept by S3, this broker tells too small ends of topics with transactions.
        while len(server.read(topic_of(url))) < 40:
            assert time.monotonic() < until, "no messages came"
        # What it is storing at that moment, this broker would lose and call stored.
        proxy.hold()
        time.sleep(0.8)
        server.kill()
        proxy.release()
        time.sleep(0.1)
        server.start()
        thread.join()
        assert sync(url, people(), home, kafka_transactions=transactions).counts.unchanged == PEOPLE, ended
        messages = server.read(topic_of(url))
    assert replayed(messages) == expected(people())


@pytest.mark.parametrize("transactions", [True, False])
def test_connections_that_are_cut_lose_nothing(home: Path, transactions: bool) -> None:
    listening = free_port()
    with KafkaServer(advertised=listening) as server, CuttingProxy(server.port, listening) as proxy:
        url = f"kafka://127.0.0.1:{listening}/people"
        sync(url, people(5), home, kafka_transactions=transactions)
        proxy.cut_after(15_000, times=4)
        sync(url, people(), home, kafka_transactions=transactions)
        assert proxy.cut >= 3
        assert sync(url, people(), home, kafka_transactions=transactions).counts.unchanged == PEOPLE
        messages = server.read("people")
    assert replayed(messages) == expected(people())
    # Producers that know their broker repeat nothing, whatever answers were lost.
    assert repeats(messages) == 0


def command(url: str, source: Path, home: Path, *more: str) -> list[str]:
    options = ["--home", str(home), "--name", "s", "--batch-size", "10", *more]
    return [sys.executable, "-m", "rundiff", "sync", str(source), "--key", "id", "--to", url, *options]


@pytest.mark.parametrize("flag", ["--kafka-transactions", "--no-kafka-transactions"])
def test_a_killed_run_is_finished_under_the_same_keys(
    kafka_server: KafkaServer, home: Path, tmp_path: Path, flag: str
) -> None:
    url, source, rows = kafka_server.url(), tmp_path / "people.csv", people(1500)
    source.write_text("id,v\n" + "".join(f"{row['id']},{row['v']}\n" for row in rows))
    process = subprocess.Popen(command(url, source, home, flag), env={**os.environ})
    wait_for(kafka_server, url, 100)
    process.kill()
    assert process.wait() == -9
    transactions = flag == "--kafka-transactions"
    again = sync(url, source, home, kafka_transactions=transactions, batch_size=1000)
    assert "its delivery was finished first" in " ".join(again.warnings)
    messages = kafka_server.read(topic_of(url))
    assert replayed(messages) == expected(rows)
    # What was broken off is one batch at most.
    assert repeats(messages) <= 10


@pytest.mark.parametrize("transactions", [True, False])
def test_a_broker_that_is_silent_stops_the_run_and_the_next_one_goes_on(
    kafka_server: KafkaServer, home: Path, transactions: bool
) -> None:
    url = kafka_server.url()
    options = {"kafka_transactions": transactions}
    impatient = {"message.timeout.ms": "1000", "transaction.timeout.ms": "1000"}
    sync(url, people(10), home, **options)
    rows = people()
    frozen = threading.Event()

    def silenced() -> Iterator[dict[str, Any]]:
        yield from rows
        kafka_server.freeze()
        frozen.set()

    try:
        with pytest.raises(DestinationError, match=r"(?i)run again|the next run goes on"):
            sync(url, silenced(), home, kafka_options=impatient, **options)
    finally:
        assert frozen.is_set()
        kafka_server.thaw()
    assert sync(url, rows, home, **options).counts.unchanged == len(rows)
    assert replayed(kafka_server.read(topic_of(url))) == expected(rows)


def test_a_broker_that_forgot_everything_is_told_from_one_that_has_it(home: Path) -> None:
    with KafkaServer() as server:
        url = server.url()
        sync(url, people(5), home)
        server.kill()
        server.start()
        with pytest.raises(DestinationLost, match="--full-refresh"):
            sync(url, people(6), home)
        sync(url, people(6), home, full_refresh=True)
        assert replayed(server.read(topic_of(url))) == expected(people(6))
