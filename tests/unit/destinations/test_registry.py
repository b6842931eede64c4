from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from rundiff.destinations import open_destination, registry
from rundiff.errors import ConfigurationError
from rundiff.settings import DestinationOptions


def identity(url: str, into: str | None = None) -> str:
    return open_destination(DestinationOptions(url=url, into=into)).identity


def test_each_form_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = tmp_path.resolve()
    assert identity("sqlite:///crm.db", "People") == f"sqlite:///{here}/crm.db#people"
    assert identity(f"sqlite:///{here}/crm.db", "main.people") == f"sqlite:///{here}/crm.db#people"
    assert identity("duckdb:///dw.duckdb", "Sales.Orders") == f"duckdb:///{here}/dw.duckdb#sales.orders"
    assert identity("changes.jsonl") == f"{here}/changes.jsonl"
    assert identity("changes.parquet") == f"{here}/changes.parquet"
    assert identity("changes.csv") == f"{here}/changes.csv"
    assert identity("-") == "-"


def test_links_do_not_change_the_identity(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    direct = identity(f"sqlite:///{tmp_path}/real/a.db", "t")
    assert identity(f"sqlite:///{tmp_path}/link/a.db", "t") == direct


@pytest.mark.parametrize("url", ["oracle://host/db", "out.xlsx", "x-", "http:/typo", "", None])
def test_unknown_destinations_list_the_known(url: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///FILE, duckdb:///FILE, postgresql://"):
        open_destination(DestinationOptions(url=url, into="t"))


def test_secrets_of_unknown_urls_are_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_destination(DestinationOptions(url="oracle://user:hunter2@host/db", into="t"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///a.db", "duckdb:///a.duckdb"])
def test_tables_need_a_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match="--into"):
        open_destination(DestinationOptions(url=url))


def test_streams_take_no_table() -> None:
    with pytest.raises(ConfigurationError, match="leave --into out"):
        open_destination(DestinationOptions(url="a.jsonl", into="t"))


@pytest.mark.parametrize(
    "url", ["sqlite://a.db", "sqlite:///", "sqlite:///:memory:", "sqlite:///a.db?mode=ro", "duckdb://"]
)
def test_urls_that_name_no_file(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_destination(DestinationOptions(url=url, into="t"))


@pytest.mark.parametrize("into", ["", ".", "a.b.c", '"open', "a.", "nul\0", "_rundiff_watermarks"])
def test_names_that_are_no_table(into: str) -> None:
    with pytest.raises(ConfigurationError):
        open_destination(DestinationOptions(url="duckdb:///a.duckdb", into=into))


def test_sqlite_has_no_schemas_and_keeps_names() -> None:
    for into in ("crm.people", "sqlite_master"):
        with pytest.raises(ConfigurationError):
            open_destination(DestinationOptions(url="sqlite:///a.db", into=into))
    assert identity("sqlite:///a.db", '"crm.people"').endswith("#crm.people")


def test_outsiders_come_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "tests.unit.destinations.test_registry:outsider", registry.ENTRY_POINTS)

    def listed(**wanted: str) -> EntryPoints:
        return EntryPoints([entry]).select(**wanted)

    monkeypatch.setattr(registry, "entry_points", listed)
    assert identity("mine://host/x") == "opened mine://host/x"
    with pytest.raises(ConfigurationError, match="mine://"):
        open_destination(DestinationOptions(url="other://x"))


class outsider:  # noqa: N801  # stands for a factory function
    def __init__(self, options: DestinationOptions) -> None:
        self.identity = f"opened {options.url}"


def test_backends_are_imported_late() -> None:
    code = (
        "import sys, rundiff.destinations.registry as r\n"
        "from rundiff.settings import DestinationOptions\n"
        "assert not {'duckdb', 'sqlite3', 'pyarrow'} & set(sys.modules), 'registry'\n"
        "r.open_destination(DestinationOptions(url='sqlite:///a.db', into='t'))\n"
        "assert 'duckdb' not in sys.modules, 'sqlite'\n"
        "r.open_destination(DestinationOptions(url='duckdb:///a.db', into='t'))\n"
        "assert 'duckdb' not in sys.modules, 'opened before it is asked for anything'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
