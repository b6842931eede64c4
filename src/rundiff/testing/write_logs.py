"""The conformance suite of write logs: what `rundiff.database.logs` promises, as tests.

Write a subclass whose `open_database` fixture gives a function that opens one and the same database,
empty at first, and, if it keeps write logs on a server, an `other_home` fixture that gives another folder:

    class TestMine(WriteLogSuite):
        @pytest.fixture
        def open_database(self, tmp_path):
            return lambda: MyDatabase(tmp_path)
"""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rundiff.database.contract import Database, StoredSync
from rundiff.database.logs import WriteLog
from rundiff.engine.home import Home
from rundiff.engine.log import CREATES, DELETES, UPDATES, LogWriter, log_format, log_schema
from rundiff.errors import Fenced
from rundiff.testing.databases import NOW, a_sync

__all__ = ["WriteLogSuite", "a_change_set", "records"]

UGLY = ("plain", "a\0b", "tab\tline\nback\\slash \\N \\.", '"quoted" {braces}', "ünïcödé 🦆", "", "\x7f\x85")


def records(count: int, *, first: int = 0, with_data: bool = True) -> pa.RecordBatch:
    """Make write records with ugly values, sorted by key signature."""
    numbers = range(first, first + count)
    signatures = [number.to_bytes(32, "big") for number in numbers]
    data = pa.StructArray.from_arrays(
        [
            pa.array(numbers, pa.uint64()),
            pa.array([UGLY[number % len(UGLY)] for number in numbers]),
            pa.array(np.where(np.arange(count) % 3 == 0, np.nan, np.arange(count) / 3)),
            pa.array([bytes([number % 256, 0, 255]) for number in numbers]),
            pa.array([Decimal(number) / 100 for number in numbers], pa.decimal128(20, 2)),
            pa.array([None if number % 5 else [{"k": number}, None] for number in numbers]),
            pa.array([number * 10**9 for number in numbers], pa.timestamp("ns", "UTC")),
            pa.nulls(count),
        ],
        ["id", "te\"x't", "number", "binary", "decimal", "nested", "time", "nothing"],
        mask=None if with_data else pa.array([number % 2 == 0 for number in numbers], pa.bool_()),
    )
    key = pa.StructArray.from_arrays([pa.array(numbers, pa.uint64())], ["id"])
    fields = [
        [["te\"x't", "back\\slash", "tab\t", "line\n", "a,b{c}", "NULL", ""], None, []][n % 3]
        for n in numbers
    ]
    schema = log_schema(key.type, data.type)
    columns = [
        pa.array(signatures, pa.binary(32)),
        pa.array([bytes(reversed(each)) for each in signatures], pa.binary(32)),
        key,
        data,
        pa.array(fields, pa.list_(pa.string())),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def a_change_set(folder: Path, counts: tuple[int, int, int] = (3, 7, 5000)) -> Path:
    """Write a finished change set with so many deletes, updates and creates."""
    folder.mkdir(parents=True)
    first = 0
    for name, count in zip((DELETES, UPDATES, CREATES), counts, strict=True):
        if count:
            with LogWriter(folder / name) as writer:
                writer.write(records(count, first=first, with_data=name != DELETES))
        first += count
    (folder / "meta.json").write_bytes(b'{"name": "people"}')
    (folder / "entries.arrow").write_bytes(bytes(range(256)) * 100)
    return folder


def content(folder: Path) -> dict[str, pa.Table | bytes]:
    """Read all files of a change set."""
    return {
        path.name: pq.read_table(path) if path.suffix == ".parquet" else path.read_bytes()
        for path in sorted(folder.iterdir())
    }


def same(one: dict[str, pa.Table | bytes], other: dict[str, pa.Table | bytes]) -> bool:
    """Compare bit for bit: NaN is NaN."""
    return one.keys() == other.keys() and all(_bits(one[name]) == _bits(other[name]) for name in one)


def _bits(value: pa.Table | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    sink = pa.BufferOutputStream()
    # Taken apart and put together: whatever the chunks, equal values give equal bytes.
    whole = pa.Table.from_batches(value.combine_chunks().to_batches())
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


class WriteLogSuite:
    """What every write log has to do."""

    @pytest.fixture
    def open_database(self) -> Callable[[], Database]:
        """Give a function that opens the database; to be overridden."""
        raise NotImplementedError("a subclass says which database to test")

    @pytest.fixture
    def home_folder(self, tmp_path: Path) -> Path:
        """Where local folders are."""
        return tmp_path / "machine"

    @pytest.fixture
    def other_home(self, home_folder: Path) -> Path:
        """Where they are on another machine; the same, unless a server keeps the logs."""
        return home_folder

    @pytest.fixture
    def database(self, open_database: Callable[[], Database]) -> Iterator[Database]:
        """Open the database for one test."""
        opened = open_database()
        yield opened
        opened.close()

    @pytest.fixture
    def sync(self, database: Database) -> StoredSync:
        """Store a sync."""
        return database.create(a_sync())

    @pytest.fixture
    def token(self, database: Database, sync: StoredSync) -> int:
        """Hold its lease."""
        return database.acquire(sync.sync_id, "me", NOW)

    @pytest.fixture
    def log(self, database: Database, home_folder: Path) -> WriteLog:
        """Open the write log."""
        return _log(database, home_folder)

    @pytest.fixture
    def elsewhere(
        self, open_database: Callable[[], Database], sync: StoredSync, other_home: Path
    ) -> Iterator[WriteLog]:
        """Open it on another machine, after the sync was stored."""
        assert sync.sync_id
        opened = open_database()
        yield _log(opened, other_home)
        opened.close()

    @pytest.fixture
    def made(self, home_folder: Path) -> Callable[..., Path]:
        """Give a function that makes change sets on the same file system."""
        numbers = iter(range(1000))

        def make(*counts: int) -> Path:
            folder = home_folder / "spool" / str(next(numbers))
            return a_change_set(folder, counts) if counts else a_change_set(folder)  # type: ignore[arg-type]

        return make

    def test_a_log_comes_back_exactly(
        self, log: WriteLog, elsewhere: WriteLog, sync: StoredSync, token: int, made: Callable[..., Path]
    ) -> None:
        """All files, all types and values, here and on another machine."""
        folder = made()
        before = content(folder)
        kept = log.seal(sync.sync_id, 1, token, folder, new_action="insert")
        assert not folder.exists()
        assert same(content(kept), before)
        assert same(content(log.folder(sync.sync_id, 1)), before)
        assert same(content(elsewhere.folder(sync.sync_id, 1)), before)
        assert same(content(elsewhere.folder(sync.sync_id, 1)), before)

    def test_what_is_held_is_apart(
        self, log: WriteLog, elsewhere: WriteLog, sync: StoredSync, token: int, made: Callable[..., Path]
    ) -> None:
        """One run may leave both."""
        first, second = made(3, 0, 0), made(0, 2, 0)
        one, other = content(first), content(second)
        log.hold(sync.sync_id, 1, token, first)
        log.seal(sync.sync_id, 1, token, second, new_action="create")
        assert same(content(elsewhere.held(sync.sync_id, 1)), one)
        assert same(content(elsewhere.folder(sync.sync_id, 1)), other)

    def test_without_changes(
        self, log: WriteLog, elsewhere: WriteLog, sync: StoredSync, token: int, made: Callable[..., Path]
    ) -> None:
        """Most runs find nothing."""
        folder = made(0, 0, 0)
        before = content(folder)
        assert "meta.json" in before
        log.seal(sync.sync_id, 1, token, folder, new_action="create")
        assert same(content(elsewhere.folder(sync.sync_id, 1)), before)

    def test_what_is_not_there(self, log: WriteLog, sync: StoredSync) -> None:
        """A path at which nothing is; looking makes nothing."""
        assert not log.folder(sync.sync_id, 7).exists()
        assert not log.held(sync.sync_id, 7).exists()
        assert not log.folder("", 7).exists()

    def test_a_number_that_is_given_again(
        self, log: WriteLog, elsewhere: WriteLog, sync: StoredSync, token: int, made: Callable[..., Path]
    ) -> None:
        """What had it is replaced, also where it was copied to."""
        log.seal(sync.sync_id, 1, token, made(1, 1, 1), new_action="create")
        log.hold(sync.sync_id, 1, token, made(1, 0, 0))
        again, held = made(0, 9, 0), made(2, 0, 0)
        before, before_held = content(again), content(held)
        log.seal(sync.sync_id, 1, token, again, new_action="create")
        log.hold(sync.sync_id, 1, token, held)
        assert same(content(log.folder(sync.sync_id, 1)), before)
        assert same(content(elsewhere.folder(sync.sync_id, 1)), before)
        assert same(content(elsewhere.held(sync.sync_id, 1)), before_held)

    def test_a_part_of_a_log(
        self, log: WriteLog, elsewhere: WriteLog, sync: StoredSync, token: int, made: Callable[..., Path]
    ) -> None:
        """It holds the keys' records as they were, and knows their places in the whole; others may be missing."""
        folder = made(1_500, 1_100, 7_000)
        whole = content(folder)
        log.seal(sync.sync_id, 1, token, folder, new_action="create")
        for place in (log, elsewhere):
            wanted = pa.array(
                [number.to_bytes(32, "big") for number in (9_599, 2_600, 0, 5_000, 10**6)], pa.binary(32)
            )
            part = place.part(sync.sync_id, 1, wanted)
            found = 0
            for name in (DELETES, UPDATES, CREATES):
                path, kept = part.folder / name, whole[name]
                if not path.exists():
                    continue
                assert isinstance(kept, pa.Table)
                table = pq.read_table(path)
                assert table.schema == kept.schema
                keys = table.column("primary_key_signature")
                for row in np.flatnonzero(pc.is_in(keys, wanted)).tolist():
                    at = part.row_in_log(name, row)
                    assert _bits(table.slice(row, 1)) == _bits(kept.slice(at, 1))
                    found += 1
            assert found == 4
        assert not elsewhere.part(sync.sync_id, 7, wanted).folder.exists()

    def test_which_runs_have_a_key(
        self, log: WriteLog, sync: StoredSync, token: int, made: Callable[..., Path]
    ) -> None:
        """All of them, and, where there is an index, no other."""
        log.seal(sync.sync_id, 1, token, made(1, 1, 1), new_action="create")
        log.seal(sync.sync_id, 2, token, made(5, 0, 0), new_action="create")
        wanted = [number.to_bytes(32, "big") for number in (3, 4)]
        assert log.runs_of(sync.sync_id, wanted) in (None, {2})
        assert log.runs_of(sync.sync_id, [b"\xff" * 32]) in (None, set())

    def test_records_that_come_back(
        self, log: WriteLog, sync: StoredSync, token: int, made: Callable[..., Path]
    ) -> None:
        """Whoever has an index tells of records that are created and deleted in turn; else the folders do."""
        for run in range(1, 5):
            counts = (3, 0, 0) if run % 2 else (0, 0, 5)
            log.seal(sync.sync_id, run, token, made(*counts), new_action="create")
        found = log.flaps(sync.sync_id, [1, 2, 3, 4], None)
        if found is None:
            return
        assert found.count == 3
        assert [flap.primary_key for flap in found.sample] == [{"id": number} for number in range(3)]
        assert {(flap.changes, flap.deletes, flap.returns) for flap in found.sample} == {(4, 2, 2)}
        # All of these keys begin with 64 bits of zero.
        again = log.flaps(sync.sync_id, [1, 2, 3, 4], 1)
        assert again is not None
        assert again.count == 3
        for runs, below in (([1, 2, 3], None), ([], None), ([1, 2, 3, 4], 0)):
            none = log.flaps(sync.sync_id, runs, below)
            assert none is not None
            assert (none.count, none.sample) == (0, [])

    def test_dropped_and_retained(
        self, log: WriteLog, elsewhere: WriteLog, sync: StoredSync, token: int, made: Callable[..., Path]
    ) -> None:
        """What no run names goes; what is missing is ignored."""
        for run in (1, 2, 3, 4):
            log.seal(sync.sync_id, run, token, made(1, 1, 1), new_action="create")
            log.hold(sync.sync_id, run, token, made(1, 0, 0))
        log.drop(sync.sync_id, 4, token)
        log.drop(sync.sync_id, 4, token)
        assert not log.folder(sync.sync_id, 4).exists()
        log.retain(sync.sync_id, token, {1, 3, 99}, 2)
        for place in (log, elsewhere):
            assert [run for run in range(1, 5) if place.folder(sync.sync_id, run).exists()] == [1, 3]
            assert [run for run in range(1, 5) if place.held(sync.sync_id, run).exists()] == [2]
        log.retain(sync.sync_id, token, set(), None)
        assert not log.folder(sync.sync_id, 1).exists()

    def test_a_stale_token_keeps_and_removes_nothing(
        self, database: Database, log: WriteLog, sync: StoredSync, token: int, made: Callable[..., Path]
    ) -> None:
        """Where a lease can end under its holder."""
        if database.lease_seconds is None:
            assert log.runs_of(sync.sync_id, []) is None
            return
        log.seal(sync.sync_id, 1, token, made(1, 1, 1), new_action="create")
        log.hold(sync.sync_id, 1, token, made(1, 0, 0))
        before, held = content(log.folder(sync.sync_id, 1)), content(log.held(sync.sync_id, 1))
        database.acquire(sync.sync_id, "Grace", NOW, over=True)
        for act in (
            lambda: log.seal(sync.sync_id, 1, token, made(9, 9, 9), new_action="create"),
            lambda: log.hold(sync.sync_id, 1, token, made(9, 0, 0)),
            lambda: log.drop(sync.sync_id, 1, token),
            lambda: log.retain(sync.sync_id, token, set(), None),
        ):
            with pytest.raises(Fenced):
                act()
        assert same(content(log.folder(sync.sync_id, 1)), before)
        assert same(content(log.held(sync.sync_id, 1)), held)


def _log(database: Database, home: Path) -> WriteLog:
    home.mkdir(exist_ok=True)
    return database.write_log(Home(home), log_format())
