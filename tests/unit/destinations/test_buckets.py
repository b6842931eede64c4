from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rundiff.destinations import open_destination
from rundiff.destinations.buckets import parse_bucket
from rundiff.destinations.contract import Target
from rundiff.errors import ConfigurationError, DestinationError
from rundiff.settings import DestinationOptions

TARGET = Target(sync_id="one", sync="people", primary_key=("id",), token=1)


def opened(url: str, **options: Any) -> Any:
    return open_destination(DestinationOptions(url=url, **options))


@pytest.mark.parametrize(
    ("url", "identity"),
    [
        ("s3://b/people.parquet", "s3://b/people.parquet"),
        ("S3://b/crm/people.csv/", "s3://b/crm/people.csv"),
        ("s3://b/a=1/p.jsonl?region=eu-west-1", "s3://b/a=1/p.jsonl"),
        (
            "s3://b/p.parquet?endpoint=http://localhost:9000",
            "s3://b/p.parquet?endpoint=http://localhost:9000",
        ),
        ("gs://b/people.parquet", "gs://b/people.parquet"),
        ("az://c/people.csv?account=crm", "az://c/people.csv?account=crm"),
    ],
)
def test_a_place_is_named_without_what_may_change(url: str, identity: str) -> None:
    assert opened(url).identity == identity


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_every_store_opens_without_being_asked_for_anything(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "crm")
    assert type(parse_bucket(f"{scheme}://b/p.parquet").open()).__module__.startswith("obstore")


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://b",
        "s3:///p.parquet",
        "s3://b/a//p.parquet",
        "s3://b/../p.parquet",
        "s3://b/p%2f.parquet",
        "s3://b/p.parquet#x",
        "s3://b/p.txt",
        "s3://b/p.parquet?x",
        "gs://b/p.parquet?region=x",
    ],
)
def test_what_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(s3|gs)://"):
        opened(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:never-show@b/p.parquet",
        "s3://b/p.parquet?secret_access_key=never-show",
        "az://b/p.csv?sig=never-show",
    ],
)
def test_secrets_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="in the environment") as caught:
        opened(url)
    assert "never-show" not in str(caught.value)


def test_options_of_tables_and_csv_are_refused() -> None:
    for options in ({"into": "t"}, {"mode": "append"}, {"csv_formula_safe": True}):
        with pytest.raises(ConfigurationError, match="leave"):
            opened("s3://b/p.parquet", **options)
    assert opened("s3://b/p.csv?region=x", csv_formula_safe=True).identity == "s3://b/p.csv"


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never-show")
    with pytest.raises(
        DestinationError, match=r"^s3://b/p.csv\?endpoint=http://127.0.0.1:1 can't be"
    ) as caught:
        opened("s3://b/p.csv?endpoint=http://127.0.0.1:1").check(TARGET, None)
    assert "run again" in str(caught.value)
    assert "never-show" not in str(caught.value)
    assert "Debug" not in str(caught.value)


def test_the_driver_is_imported_when_a_store_is_named(tmp_path: Path) -> None:
    code = (
        "import sys, rundiff.cli, rundiff.destinations.registry as r\n"
        "from rundiff.settings import DestinationOptions\n"
        "for url in ('a.parquet', 'a.csv', 'a.jsonl'):\n"
        "    r.open_destination(DestinationOptions(url=url))\n"
        "import rundiff\n"
        "rundiff.sync([{'id': 1}], primary_key='id', name='p', destination=sys.argv[1])\n"
        "assert 'obstore' not in sys.modules\n"
        "sys.modules['obstore'] = None\n"
        "try:\n"
        "    r.open_destination(DestinationOptions(url='s3://b/p.parquet'))\n"
        "except r.ConfigurationError as error:\n"
        "    assert 'rundiff[objects]' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "changes.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
