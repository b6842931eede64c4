"""Stores are found by scheme, in any case; a missing driver or an unknown scheme is told, secrets never."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rundiff.errors import ConfigurationError, MissingDriver
from rundiff.stores.files import FileStore
from rundiff.stores.postgresql import PostgresqlStore
from rundiff.stores.redis import RedisStore
from rundiff.stores.registry import open_store


def test_each_scheme_has_its_store(tmp_path: Path) -> None:
    assert isinstance(open_store(None, tmp_path, tmp_path), FileStore)
    for url in ("redis://h", "REDISS://h", "unix:///r.sock", "valkey://h", "redis+cluster://a,b"):
        assert isinstance(open_store(url, tmp_path, tmp_path), RedisStore)
    assert isinstance(open_store("redis+sentinel://a/mine", tmp_path, tmp_path), RedisStore)
    for url in ("postgresql://h/d", "postgres://h/d"):
        assert isinstance(open_store(url, tmp_path, tmp_path), PostgresqlStore)


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [("redis://:hunter2@h", "redis", "redis"), ("postgresql://me:hunter2@h/d", "psycopg", "postgresql")],
)
def test_a_missing_driver_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, driver: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(MissingDriver, match=rf"pip install 'rundiff\[{extra}\]'") as caught:
        open_store(url, tmp_path, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no signature store memcached://: use one of redis://"
    ) as caught:
        open_store("memcached://:hunter2@h", tmp_path, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_files_need_no_driver() -> None:
    script = (
        "import sys, pathlib; from rundiff.stores.registry import open_store;"
        "open_store(None, pathlib.Path('a'), pathlib.Path('b'));"
        "raise SystemExit(bool({'redis', 'psycopg', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
