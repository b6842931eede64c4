"""HTTP APIs as destinations, against a real server that misbehaves as it is told."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import stamina
from standardwebhooks import Webhook
from tests.servers.http import ApiServer, Reply, Seen, api_server

import rundiff
from rundiff.api import Sync
from rundiff.cli import main
from rundiff.model import SyncWriteRecord

Row = dict[str, Any]
SIGNED = {"http_secret_env": "CRM_SECRET"}


def people(count: int, start: int = 0) -> list[Row]:
    return [{"id": i, "v": f"v{i}"} for i in range(start, start + count)]


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with api_server() as server:
        yield server


@pytest.fixture
def quick() -> Iterator[None]:
    """Repeat at once."""
    stamina.set_testing(True, attempts=5, cap=True)
    yield
    stamina.set_testing(False)


def to(api: ApiServer | str, rows: Any, home: Path, **options: Any) -> Sync:
    url = api if isinstance(api, str) else api.url
    options = {"http_allow_private": True, **options}
    return Sync(rows, "id", name="s", destination=url, home=home, **options)


def test_create_update_and_delete_are_post_patch_and_delete(api: ApiServer, home: Path) -> None:
    to(api, people(3), home).run()
    assert api.rows == {str(row["id"]): row for row in people(3)}
    changed = [{"id": 1, "v": "new"}, *people(2, 2)]
    result = to(api, changed, home).run()
    assert (result.counts.created, result.counts.updated, result.counts.deleted) == (1, 1, 1)
    assert api.rows == {str(row["id"]): row for row in changed}
    assert sorted((s.method, s.path) for s in api.seen[3:]) == [
        ("DELETE", "/people/0"),
        ("PATCH", "/people/1"),
        ("POST", "/people"),
    ]
    [created] = [seen for seen in api.seen[3:] if seen.method == "POST"]
    assert created.body == {"id": 3, "v": "v3"}
    # Each key is sync_id/run/sequence, and each came once.
    keys = [seen.key for seen in api.seen]
    assert len(set(keys)) == 6
    assert sorted(key.split("/", 1)[1] for key in keys) == ["1/1", "1/2", "1/3", "2/1", "2/2", "2/3"]


def test_urls_and_bodies_by_template(api: ApiServer, home: Path) -> None:
    options = {
        "http_item": "/{id}?by={region}",
        "http_update": "PUT",
        "http_body": '{"id": "{id}", "label": "{v} of {region}", "all": ["{*}"]}',
    }
    rows = [{"id": 1, "region": "a/b ü", "v": 2.5}]
    to(api, rows, home, **options).run()
    to(api, [{**rows[0], "v": 3}], home, **options).run()
    assert [(s.method, s.path) for s in api.seen] == [
        ("POST", "/people"),
        ("PUT", "/people/1?by=a%2Fb%20%C3%BC"),
    ]
    assert api.seen[0].body == {"id": 1, "label": "2.5 of a/b ü", "all": [{**rows[0]}]}


def shape(record: SyncWriteRecord) -> dict[str, Any]:
    assert record.data is not None
    if record.data["v"] == "bad":
        raise ValueError("no shape for this one")
    return {"id": record.primary_key["id"], "action": record.destination_action, "v": record.data["v"]}


def test_urls_and_bodies_by_function(api: ApiServer, home: Path) -> None:
    rows = [{"id": 1, "v": "a"}, {"id": 2, "v": "bad"}]
    options = {"http_body": shape, "http_item": lambda record: f"/{record.primary_key['id']}"}
    result = to(api, rows, home, **options).run()
    assert (result.counts.written, result.counts.failed) == (1, 1)
    assert api.rows == {"1": {"id": 1, "action": "create", "v": "a"}}


def test_options_in_the_project_file(
    api: ApiServer, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRM_TOKEN", "hush-hush")
    Path("people.csv").write_text("id,v\n1,a\n2,b\n")
    Path("rundiff.toml").write_text(
        f"""
[sync.people]
source = "people.csv"
key = "id"
to = "{api.url}"

[sync.people.http]
allow_private = true
headers = {{ Authorization = "Bearer ${{CRM_TOKEN}}" }}
body = {{ id = "{{id}}", name = "{{v}}" }}
rate = 1000
"""
    )
    assert main(["sync", "--home", str(home), "--quiet"]) == 0
    assert api.rows == {"1": {"id": 1, "name": "a"}, "2": {"id": 2, "name": "b"}}
    assert {seen.headers["authorization"] for seen in api.seen} == {"Bearer hush-hush"}
    # Nothing secret is stored.
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"hush-hush" not in stored
    api.rule = lambda seen: Reply(status=422, body={"error": f"no: {seen.headers['authorization']}"})
    Path("people.csv").write_text("id,v\n1,a\n2,c\n")
    assert main(["sync", "--home", str(home), "--quiet"]) == 4
    stored = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"hush-hush" not in stored
    api.rule = lambda _: None
    assert main(["retry", "people", "--home", str(home), "--quiet"]) == 0
    assert api.rows["2"] == {"id": 2, "name": "c"}


def test_webhook_signatures(api: ApiServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 -- the specification's example
    monkeypatch.setenv("CRM_SECRET", secret)
    to(api, people(2), home, **SIGNED).run()
    for seen in api.seen:
        assert Webhook(secret).verify(seen.text, seen.headers) == seen.body
        assert seen.headers["webhook-id"] == seen.key
    monkeypatch.delenv("CRM_SECRET")
    with pytest.raises(rundiff.ConfigurationError, match=r"CRM_SECRET.*is not set"):
        to(api, people(2), home, **SIGNED).run()


@pytest.mark.usefixtures("quick")
def test_retry_after_is_honoured(api: ApiServer, home: Path) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    replies = [
        Reply(status=429, headers={"Retry-After": "1"}),
        Reply(status=503, headers={"Retry-After": soon}),
    ]
    api.rule = lambda _: replies.pop(0) if replies else None
    began = time.monotonic()
    assert to(api, people(1), home).run().counts.written == 1
    assert len({seen.key for seen in api.seen}) == 1
    assert api.seen[1].at - api.seen[0].at >= 0.95
    assert api.seen[2].at - began >= 1.9


@pytest.mark.usefixtures("quick")
def test_a_server_that_wants_no_requests_for_long_stops_the_run(api: ApiServer, home: Path) -> None:
    api.rule = lambda _: Reply(status=503, headers={"Retry-After": "86400"}) if len(api.seen) > 2 else None
    with pytest.raises(rundiff.DestinationError, match=r"asks to wait 86,400 seconds.*3 of 5 changes to go"):
        to(api, people(5), home, http_concurrency=1).run()
    api.rule = lambda _: None
    to(api, people(5), home).run()
    assert len(api.rows) == 5
    assert len(api.applied) == 5


@pytest.mark.usefixtures("quick")
def test_server_errors_end_unknown_and_are_sent_again(api: ApiServer, home: Path) -> None:
    def rule(seen: Seen) -> Reply | None:
        return Reply(status=500, apply=True) if seen.body["id"] == 1 else None

    api.rule = rule
    result = to(api, people(3), home).run()
    assert (result.counts.written, result.counts.failed) == (2, 1)
    assert len([seen for seen in api.seen if seen.body["id"] == 1]) == 5
    api.rule = lambda _: None
    # It may be there, so it is sent as an update, and is found.
    assert to(api, people(3), home).run().counts.updated == 1
    # Had it gone from the source meanwhile, it would be deleted.
    assert to(api, people(1), home).run().counts.deleted == 2
    assert set(api.rows) == {"0"}


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_down_stops_the_run(home: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(rundiff.DestinationError, match="can't be reached"):
        to(f"http://127.0.0.1:{port}/people", people(3), home).run()


@pytest.mark.usefixtures("quick")
def test_a_server_that_never_answers_stops_the_run_with_progress(api: ApiServer, home: Path) -> None:
    api.rule = lambda _: Reply(status=502)
    with pytest.raises(rundiff.DestinationError, match=r"3 requests in a row to .* have no known outcome"):
        to(api, people(10), home, http_concurrency=1).run()
    assert len({seen.key for seen in api.seen}) == 3
    api.rule = lambda _: None
    last = to(api, people(10), home).run()
    # The three that were set aside came again after the delivery was finished.
    assert last.counts.updated == 3
    assert len(api.rows) == 10


@pytest.mark.usefixtures("quick")
def test_an_update_of_what_is_gone_creates_and_a_create_of_what_is_there_updates(
    api: ApiServer, home: Path
) -> None:
    api.rows["1"] = {"id": 1, "v": "theirs"}
    to(api, people(3), home).run()
    assert api.rows["1"] == {"id": 1, "v": "v1"}
    del api.rows["2"], api.rows["0"]
    result = to(api, [{"id": 1, "v": "v1"}, {"id": 2, "v": "new"}], home).run()
    assert (result.counts.written, result.counts.failed) == (2, 0)
    assert api.rows == {"1": {"id": 1, "v": "v1"}, "2": {"id": 2, "v": "new"}}


def test_a_refused_record_is_set_aside_with_the_servers_words(api: ApiServer, home: Path) -> None:
    api.rule = lambda s: (
        Reply(status=422, body={"error": {"message": "v is too short"}}) if s.body["id"] == 1 else None
    )
    result = to(api, people(3), home).run()
    assert (result.counts.written, result.counts.failed) == (2, 1)
    api.rule = lambda _: None
    assert to(api, people(3), home).retry().counts.created == 1


@pytest.mark.parametrize("status", [401, 405, 404])
def test_a_wrong_address_or_login_stops_the_run(api: ApiServer, home: Path, status: int) -> None:
    api.rule = lambda _: Reply(status=status)
    with pytest.raises(rundiff.DestinationError, match=f"answered {status}"):
        to(api, people(3), home).run()


def test_batches_with_an_outcome_for_each_record(api: ApiServer, home: Path) -> None:
    rows = people(250)
    rows[17]["v"] = rows[201]["v"] = "poison"
    result = to(api, rows, home, http_batch=100).run()
    assert (result.counts.written, result.counts.failed) == (248, 2)
    assert len(api.seen) == 3
    assert len(api.rows) == 248
    # Batches go out side by side: which of them arrives first is open.
    [first] = [seen for seen in api.seen if seen.key.endswith("/1/1-100")]
    assert first.body[0]["action"] == "create"
    assert first.body[0]["idempotency_key"].endswith("/1/1")
    again = to(api, people(249), home, http_batch=100).run()
    assert (again.counts.created, again.counts.deleted) == (2, 1)
    assert len(api.rows) == 249


def test_a_batch_that_is_refused_as_a_whole_is_halved(api: ApiServer, home: Path) -> None:
    api.rule = lambda s: (
        Reply(status=400) if any(item["primary_key"]["id"] == 77 for item in s.body) else None
    )
    result = to(api, people(256), home, http_batch=256).run()
    assert (result.counts.written, result.counts.failed) == (255, 1)
    assert len(api.seen) == 2 * 8 + 1


def test_the_rate_is_kept(api: ApiServer, home: Path) -> None:
    to(api, people(10), home, http_rate=20.0).run()
    assert api.seen[-1].at - api.seen[0].at >= 9 / 20 * 0.9


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.1.2.3",
        "169.254.169.254",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "0.0.0.0",  # noqa: S104 -- nothing is bound
        "[fe80::1]",
    ],
)
def test_private_addresses_are_refused_before_anything_is_read(home: Path, host: str) -> None:
    with pytest.raises(rundiff.ConfigurationError, match="which is not public"):
        to(f"http://{host}:9/people", people(1), home, http_allow_private=False).run()


def test_a_name_that_turns_private_later_is_refused_at_the_connection(
    api: ApiServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def rebinding(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebinding.example":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return real("93.184.215.14" if len(asked) == 1 else "127.0.0.1", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = api.url.replace("127.0.0.1", "rebinding.example")
    with pytest.raises(rundiff.DestinationError, match=r"127.0.0.1, which is not public"):
        to(url, people(1), home, http_allow_private=False).run()
    assert len(asked) == 2
    assert api.seen == []


def test_the_connection_goes_to_the_address_that_was_checked(
    api: ApiServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def counting(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if host == "api.example" else host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", counting)
    to(api.url.replace("127.0.0.1", "api.example"), people(1), home).run()
    # Twice by name, for the check and the connection; then only its address is asked for.
    assert asked.count("api.example") == 2
    assert api.seen[0].headers["host"].startswith("api.example")


def test_redirects_keep_the_request_and_leave_secrets_behind(api: ApiServer, home: Path) -> None:
    with api_server() as other:
        api.rule = lambda s: Reply(
            status=307, headers={"Location": f"{other.url}{s.path.removeprefix('/people')}"}
        )
        to(api, people(1), home, http_headers={"X-Token": "hush"}).run()
        assert other.rows == {"0": {"id": 0, "v": "v0"}}
        assert api.seen[0].headers["x-token"] == "hush"
        assert "x-token" not in other.seen[0].headers
        assert other.seen[0].key == api.seen[0].key


def test_a_redirect_to_a_private_address_is_refused(
    api: ApiServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rundiff.destinations import addresses

    # The first server counts as public here; where it redirects to does not.
    is_public = addresses._is_public
    monkeypatch.setattr(addresses, "_is_public", lambda a: str(a) == "127.0.0.1" or is_public(a))
    api.rule = lambda _: Reply(status=307, headers={"Location": "http://169.254.169.254/latest"})
    with pytest.raises(rundiff.DestinationError, match=r"169\.254\.169\.254, which is not public"):
        to(api, people(1), home, http_allow_private=False).run()


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_change_the_method_is_not_followed(
    api: ApiServer, home: Path, status: int
) -> None:
    api.rule = lambda _: Reply(status=status, headers={"Location": "/elsewhere"})
    with pytest.raises(rundiff.DestinationError, match=r"to http://127.0.0.1:.*/elsewhere.*name the address"):
        to(api, people(1), home).run()
    assert len(api.seen) == 1


def test_a_key_that_would_lead_elsewhere_is_refused(api: ApiServer, home: Path) -> None:
    to(api, [{"id": "a/../b", "v": 1}, {"id": "x", "v": 1}], home).run()
    result = to(api, [{"id": "", "v": 1}, {"id": "..", "v": 1}, {"id": "a/../b", "v": 2}], home).run()
    assert (result.counts.failed, result.counts.deleted) == (2, 1)
    assert {s.path for s in api.seen if s.method == "PATCH"} == {"/people/a%2F..%2Fb"}


def test_templates_that_cannot_work_are_refused_before_anything_is_sent(api: ApiServer, home: Path) -> None:
    for options, says in (
        ({"http_item": "/all"}, "must have a placeholder"),
        ({"http_body": "{nope"}, "must be JSON"),
        ({"http_body": "no.such.module:function"}, "can't be imported"),
        ({"http_body": '{"x": "{missing}"}'}, "names the field missing"),
        ({"http_batch": 0}, "1 or more"),
    ):
        with pytest.raises(rundiff.ConfigurationError, match=says):
            to(api, people(1), home, **options).run()
    with pytest.raises(rundiff.ConfigurationError, match="has no tables"):
        to(api, people(1), home, into="people").run()
    assert api.seen == []
