"""URLs of servers: read without a driver, shown without secrets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rundiff.destinations import open_destination
from rundiff.errors import ConfigurationError
from rundiff.settings import DestinationOptions


def identity(url: str, into: str = "t", mode: str = "mirror") -> str:
    options = DestinationOptions(url=url, into=into, mode=mode)  # type: ignore[arg-type]
    return open_destination(options).identity


@pytest.mark.parametrize(
    ("url", "into", "expected"),
    [
        ("postgresql://me:secret@Db.Example/crm", "t", "postgresql://db.example:5432/crm#t"),
        ("postgres://db.example:6000/crm?sslmode=require", "public.t", "postgresql://db.example:6000/crm#t"),
        ("postgresql://u:p%40%2F@[::1]/crm", "S.T", "postgresql://[::1]:5432/crm#S.T"),
        ("postgresql:///crm?host=/run/pg", "t", "postgresql:///run/pg:5432/crm#t"),
        ("mysql://me:secret@h/crm", "t", "mysql://h:3306/crm#t"),
        ("mariadb://h/crm", "crm.t", "mysql://h:3306/crm#t"),
        ("mysql://h/crm", "other.t", "mysql://h:3306/crm#other.t"),
    ],
)
def test_a_server_is_known_by_host_port_and_database(url: str, into: str, expected: str) -> None:
    assert identity(url, into) == expected


def test_the_mode_stands_behind_the_table() -> None:
    assert identity("mysql://h/crm", mode="history") == "mysql://h:3306/crm#t?mode=history"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:secret@h", "needs the name of a database"),
        ("postgresql://me:se#cret@h/db", "can't be read|needs the name"),
        ("postgresql://me:secret@h:port/db", "can't be read"),
        ("postgresql://h/db?password=secret", "before the host"),
        ("mysql://h/db?sslpassword=secret", "before the host"),
        ("mysql://h/db?charset=secret", "knows no option charset"),
        ("postgresql://h/db?secret", "can't be read"),
    ],
)
def test_urls_that_are_refused_are_not_repeated(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        identity(url)
    assert "secret" not in str(caught.value)
    assert "cret@" not in str(caught.value)


def test_modes_are_for_tables() -> None:
    with pytest.raises(ConfigurationError, match="--mode append is for tables"):
        open_destination(DestinationOptions(url="out.jsonl", mode="append"))


@pytest.mark.parametrize(
    ("scheme", "driver", "hint"),
    [("postgresql", "psycopg", r"rundiff\[postgresql\]"), ("mysql", "pymysql", r"rundiff\[mysql\]")],
)
def test_a_missing_driver_is_told_with_what_to_install(scheme: str, driver: str, hint: str) -> None:
    code = (
        f"import sys; sys.modules[{driver!r}] = None\n"
        "from rundiff.destinations import open_destination\n"
        "from rundiff.destinations.contract import Target\n"
        "from rundiff.settings import DestinationOptions\n"
        f"there = open_destination(DestinationOptions(url='{scheme}://127.0.0.1/db', into='t'))\n"
        "assert there.identity\n"
        "there.check(Target(sync_id='s', sync='s', primary_key=('id',)), None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MissingDriver" in done.stderr
    assert hint.replace("\\", "") in done.stderr
