"""Kafka over TLS: what the settings name reaches the broker, and what is wrong with them is said without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port
from tests.servers.tls import TlsRelay
from tests.servers.valkey import certificates

import rundiff
from rundiff.errors import DestinationError

SECRET = "never-show-this"  # noqa: S105 -- of a user that no broker has
ROWS = [{"id": number, "v": f"v{number}"} for number in range(20)]


@pytest.fixture(scope="module")
def over_tls() -> Iterator[tuple[KafkaServer, TlsRelay, str]]:
    """A broker that sends its clients to a TLS port: the broker, the relay, and the port's address."""
    listening = free_port()
    address, authority = f"127.0.0.1:{listening}", str(certificates() / "ca.crt")
    client = {"bootstrap.servers": address, "security.protocol": "ssl", "ssl.ca.location": authority}
    with KafkaServer(listening, client=client) as server, TlsRelay(server.port, listening) as relay:
        yield server, relay, address


@pytest.mark.parametrize("transactions", [True, False])
def test_records_arrive_over_tls(
    over_tls: tuple[KafkaServer, TlsRelay, str], tmp_path: Path, transactions: bool
) -> None:
    server, relay, address = over_tls
    topic = f"secure_{transactions}"
    url = f"kafka://{address}/{topic}?security=ssl&ssl_ca={certificates() / 'ca.crt'}"

    def run() -> rundiff.Run:
        return rundiff.sync(
            ROWS,
            primary_key="id",
            name="s",
            destination=url,
            home=tmp_path,
            kafka_value="record",
            kafka_transactions=transactions,
        )

    before = relay.served
    assert run().counts.written == len(ROWS)
    assert relay.served > before
    assert run().counts.unchanged == len(ROWS)
    found = [json.loads(message.value() or b"") for message in server.read(topic)]
    assert sorted(found, key=lambda row: row["id"]) == ROWS


def test_an_authority_that_did_not_sign_is_refused(
    over_tls: tuple[KafkaServer, TlsRelay, str], tmp_path: Path
) -> None:
    _, _, address = over_tls
    for authority in (f"&ssl_ca={certificates() / 'server.crt'}", ""):  # signs nothing; those of the system
        url = f"kafka://ada:{SECRET}@{address}/refused?security=sasl_ssl{authority}"
        with pytest.raises(DestinationError, match=r"certificate verify failed.*Mend user") as refused:
            rundiff.sync(ROWS, primary_key="id", name="s", destination=url, home=tmp_path)
        assert SECRET not in str(refused.value)


def test_a_login_over_tls_that_the_broker_refuses(tmp_path: Path) -> None:
    listening = free_port()
    with KafkaServer(listening, logins=True) as server, TlsRelay(server.port, listening):
        asked = f"sasl=SCRAM-SHA-512&ssl_ca={certificates() / 'ca.crt'}"
        url = f"kafka://ada:{SECRET}@127.0.0.1:{listening}/people?{asked}"
        with pytest.raises(DestinationError, match=r"SCRAM authentication failed.*Mend user") as refused:
            rundiff.sync(ROWS, primary_key="id", name="s", destination=url, home=tmp_path)
        assert SECRET not in str(refused.value)
