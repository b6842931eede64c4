"""What of Kafka needs no broker: addresses, options, and what messages look like."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rundiff.destinations import open_destination
from rundiff.destinations.contract import ChangeBatch, Target
from rundiff.destinations.kafka_address import parse_kafka
from rundiff.destinations.kafka_messages import Form, Messages, Value, render
from rundiff.engine.session import store_destination
from rundiff.errors import ConfigurationError, MissingDriver
from rundiff.project import load_project
from rundiff.settings import DestinationOptions
from rundiff.testing.batches import change_batch

TARGET = Target(sync_id="s-1", sync="people", primary_key=("id",), token=1)
AT = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def test_brokers_are_named_alike_whatever_their_order_and_case() -> None:
    one = parse_kafka("kafka://B.example,a.example:9093/people", {})
    other = parse_kafka("kafka://a.example:9093,b.example:9092/people", {})
    assert one.identity == other.identity == "kafka://a.example:9093,b.example:9092/people"
    assert one.client == {"bootstrap.servers": "a.example:9093,b.example:9092"}
    assert parse_kafka("kafka://[::1]:9094/t", {}).brokers == ("[::1]:9094",)


def test_a_login_goes_over_tls_and_is_shown_nowhere() -> None:
    url = "kafka://ada:s%40fe-word@h:9092/t"
    address = parse_kafka(f"{url}?sasl=scram-sha-512&ssl_ca=/ca.pem", {"linger.ms": "5"})
    assert address.client == {
        "bootstrap.servers": "h:9092",
        "security.protocol": "sasl_ssl",
        "ssl.ca.location": "/ca.pem",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "ada",
        "sasl.password": "s@fe-word",
        "linger.ms": "5",
    }
    assert address.identity == "kafka://h:9092/t"
    options = DestinationOptions(
        url=url, kafka_options={"ssl.key.password": "s@fe-word"}, kafka_value="record"
    )
    stored = store_destination(options, address.identity)
    assert stored.particular == {"kafka_value": "record"}
    for shown in (repr(address), repr(open_destination(options)), stored.encode()):
        assert "fe-word" not in shown


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("kafka://h:9092", {}, "needs a topic"),
        ("kafka://h/", {}, "needs a topic"),
        ("kafka:///t", {}, "can't be read"),
        ("kafka://h:99999/t", {}, "can't be read"),
        ("kafka://h:x/t", {}, "can't be read"),
        ("kafka://h,/t", {}, "can't be read"),
        ("kafka://h/a b", {}, "letters, digits"),
        ("kafka://h/..", {}, "letters, digits"),
        ("kafka://h/a/b", {}, "letters, digits"),
        ("kafka://h/t?acks=0", {}, "knows no option acks"),
        ("kafka://h/t?security=none", {}, "security must be one of"),
        ("kafka://u:pw@h/t?sasl=MAGIC", {}, "sasl must be one of"),
        ("kafka://u:pw@h/t?security=ssl", {}, "would log in nowhere"),
        ("kafka://h/t", {"transactional.id": "x"}, "can't set transactional.id"),
        ("kafka://h/t", {"acks": "1"}, "can't set acks"),
    ],
)
def test_what_can_not_work_is_refused(url: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse_kafka(url, options)
    assert "pw" not in str(caught.value)


def test_other_refusals() -> None:
    with pytest.raises(ConfigurationError, match="own topic"):
        open_destination(DestinationOptions(url="kafka://h/t", kafka_watermarks="t"))
    with pytest.raises(ConfigurationError, match="has no tables"):
        open_destination(DestinationOptions(url="kafka://h/t", into="people"))
    wrong = open_destination(
        DestinationOptions(url="kafka://h/t", kafka_options={"security.protocol": "s3cret"})
    )
    with pytest.raises(ConfigurationError, match="can't be made") as caught:
        wrong.check(TARGET, None)
    assert "s3cret" not in str(caught.value)


def test_the_driver_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(MissingDriver, match=r"rundiff\[kafka\]"):
        open_destination(DestinationOptions(url="kafka://h/t"))


def test_a_table_of_the_project_file_gives_the_options(tmp_path: Path) -> None:
    path = tmp_path / "rundiff.toml"
    path.write_text(
        '[sync.people]\nsource = "people.csv"\nkey = "id"\nto = "kafka://${KAFKA_USER}@h/t"\n'
        '[sync.people.kafka]\nvalue = "debezium"\ntransactions = false\n'
        'options = { "linger.ms" = "5", "ssl.key.password" = "${KEY_WORD}" }\n'
    )
    found = load_project(path, {"KAFKA_USER": "u:pw", "KEY_WORD": "word"}).settings("people").destination
    assert (found.kafka_value, found.kafka_transactions, found.kafka_tombstones) == ("debezium", False, True)
    assert found.kafka_options == {"linger.ms": "5", "ssl.key.password": "word"}


def rendered(batch: ChangeBatch, value: Value, *, tombstones: bool = True) -> Messages:
    [messages] = render(TARGET, batch, Form(value=value, tombstones=tombstones))
    return messages


def batch_of(action: str, rows: list[dict[str, Any]], key: tuple[str, ...] = ("id",)) -> ChangeBatch:
    made = change_batch(rows, action, key=key, run=3, first=4)
    return ChangeBatch(
        run=made.run,
        first_sequence=made.first_sequence,
        action=made.action,
        records=made.records,
        sealed_at=AT,
    )


def test_keys_are_objects_with_their_fields_in_the_order_of_the_key() -> None:
    rows = [{"a": 1, "region": "EU", "id": 7}, {"a": 2, "region": 'U"S', "id": 2**60}]
    assert rendered(batch_of("create", rows, ("id", "region")), "change").keys == [
        b'{"id":7,"region":"EU"}',
        b'{"id":"1152921504606846976","region":"U\\"S"}',
    ]


def test_headers_say_which_change_it_is() -> None:
    messages = rendered(batch_of("update", [{"id": 1}, {"id": 2}]), "record")
    assert messages.headers == (
        ("rundiff.sync", b"people"),
        ("rundiff.run", b"3"),
        ("rundiff.action", b"update"),
    )
    assert messages.sequences == [b"4", b"5"]
    assert messages.idempotency_keys == [b"s-1/3/4", b"s-1/3/5"]


def test_a_change_is_the_object_of_the_stream_and_a_delete_a_tombstone() -> None:
    change = json.loads(rendered(batch_of("create", [{"id": 1, "v": "x"}]), "change").values[0] or b"")
    assert (change["action"], change["primary_key"], change["data"]) == (
        "create",
        {"id": 1},
        {"id": 1, "v": "x"},
    )
    assert (change["run"], change["sequence"], change["idempotency_key"]) == (3, 4, "s-1/3/4")
    for value in ("change", "record"):
        gone = rendered(batch_of("delete", [{"id": 1, "v": "x"}]), value)
        assert (list(gone.values), gone.tombstones) == ([None], False)


def test_a_record_stands_alone() -> None:
    assert list(rendered(batch_of("update", [{"id": 1, "v": None}]), "record").values) == [
        b'{"id":1,"v":null}'
    ]


def test_debezium_envelopes() -> None:
    row = {"id": 1, "v": "x"}
    for action, op, before, after in (
        ("create", "c", None, row),
        ("update", "u", None, row),
        ("delete", "d", row, None),
    ):
        messages = rendered(batch_of(action, [row]), "debezium")
        found = json.loads(messages.values[0] or b"")
        assert list(found) == ["before", "after", "source", "op", "ts_ms"]
        assert (found["op"], found["before"], found["after"]) == (op, before, after)
        assert found["ts_ms"] == found["source"]["ts_ms"] == 1_714_564_800_250
        assert {
            k: found["source"][k] for k in ("connector", "name", "snapshot", "sync_id", "run", "sequence")
        } == {
            "connector": "rundiff",
            "name": "people",
            "snapshot": "false",
            "sync_id": "s-1",
            "run": 3,
            "sequence": 4,
        }
        assert messages.tombstones == (action == "delete")
    assert not rendered(batch_of("delete", [row]), "debezium", tombstones=False).tombstones


def test_a_delete_whose_data_are_gone_has_its_key_before() -> None:
    whole = batch_of("delete", [{"id": 1, "v": "x"}])
    at = whole.records.schema.get_field_index("data")
    gone = whole.records.set_column(at, "data", pa.nulls(1, whole.records.schema.field("data").type))
    batch = ChangeBatch(run=3, first_sequence=4, action=whole.action, records=gone)
    found = json.loads(rendered(batch, "debezium").values[0] or b"")
    assert (found["before"], found["after"], found["ts_ms"]) == ({"id": 1}, None, None)


def test_sizes_are_not_below_what_is_sent() -> None:
    rows = [{"id": n, "v": "é" * n} for n in range(5)]
    messages = rendered(batch_of("create", rows), "change")
    for row, value in enumerate(messages.values):
        sent = len(messages.keys[row]) + len(value or b"") + len(messages.idempotency_keys[row])
        assert sent < messages.sizes[row] < sent + 300
