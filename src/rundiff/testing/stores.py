"""The conformance suite of signature stores: what `rundiff.stores.contract` promises, as tests.

Write a subclass whose `open_store` fixture gives a function that opens one and the same store, empty at
first, as often as it is called, and pytest runs the suite on it:

    class TestMine(StoreSuite):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MyStore(tmp_path)
"""
# ruff: noqa: S101  # the module is made of assertions

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from rundiff.baseline.fields import as_field_signatures
from rundiff.baseline.order import argsort, words
from rundiff.baseline.segments import Segment, entries, write_segment
from rundiff.errors import Fenced
from rundiff.stores.contract import SignatureStore

__all__ = ["StoreSuite"]

SYNC = "5f0c1d9e-0000-4000-8000-000000000001"
OTHER = "5f0c1d9e-0000-4000-8000-000000000002"


def _signatures(content: bytes) -> pa.FixedSizeBinaryArray:
    buffers = [None, pa.py_buffer(content)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(content) // 32, buffers)


class StoreSuite:
    """What every signature store has to do."""

    @pytest.fixture
    def open_store(self) -> Callable[[], SignatureStore]:
        """Give a function that opens the store; to be overridden."""
        raise NotImplementedError("a subclass says which store to test")

    @pytest.fixture
    def store(self, open_store: Callable[[], SignatureStore]) -> SignatureStore:
        """Open the store for one test."""
        return open_store()

    @staticmethod
    def put(store: SignatureStore, name: str, content: bytes, sync_id: str = SYNC) -> None:
        """Write an object and hand it over."""
        path = store.workspace(sync_id) / name
        path.write_bytes(content)
        store.put(sync_id, path)

    @staticmethod
    def content(store: SignatureStore, name: str, sync_id: str = SYNC) -> bytes | None:
        """Read an object."""
        path = store.get(sync_id, name)
        return None if path is None else path.read_bytes()

    def test_an_object_comes_back(
        self, store: SignatureStore, open_store: Callable[[], SignatureStore]
    ) -> None:
        """Byte for byte, also from another opening."""
        self.put(store, "base-1.arrow", b"\x00\xff" * 1000)
        self.put(store, "empty", b"")
        for opened in (store, open_store()):
            assert self.content(opened, "base-1.arrow") == b"\x00\xff" * 1000
            assert self.content(opened, "empty") == b""

    def test_large_objects_come_back(
        self, store: SignatureStore, open_store: Callable[[], SignatureStore]
    ) -> None:
        """Those that a server keeps in many parts: bytes of any kind, and a segment."""
        random = np.random.default_rng(7)
        self.put(store, "large", random.bytes(3_000_000))
        rows = 20_000
        keys, data = (_signatures(random.bytes(32 * rows)) for _ in range(2))
        texts = pa.array(["x" * (number % 40) for number in range(rows)])
        batch = entries(
            (keys.take(pa.array(argsort(words(keys)))), data),
            pa.StructArray.from_arrays([pa.array(range(rows)), texts], ["id", "region"]),
            3,
            fields=as_field_signatures(
                {name: random.integers(0, 1 << 64, rows, np.uint64) for name in ("v", "w")},
                np.arange(rows) % 1000 > 0,
            ),
        )
        info = write_segment(store.workspace(SYNC) / "base-1.arrow", batch.schema, [batch])
        store.put(SYNC, store.workspace(SYNC) / "base-1.arrow")
        opened = open_store()
        assert self.content(opened, "large") == np.random.default_rng(7).bytes(3_000_000)
        assert opened.touch(SYNC, ["large", "base-1.arrow"], 600) == []
        path = opened.get(SYNC, "base-1.arrow")
        assert path is not None
        assert Segment.open(path, info).batches[0].equals(batch)

    def test_what_is_not_there_is_none(self, store: SignatureStore) -> None:
        """Neither a missing object nor a missing sync is made up."""
        assert store.get(SYNC, "base-1.arrow") is None
        assert list(store.names(SYNC)) == []
        assert store.current_manifest(SYNC) is None

    def test_putting_twice_is_putting_once(self, store: SignatureStore) -> None:
        """The same name is the same object."""
        self.put(store, "base-1.arrow", b"one")
        self.put(store, "base-1.arrow", b"one")
        assert self.content(store, "base-1.arrow") == b"one"
        assert list(store.names(SYNC)) == ["base-1.arrow"]

    def test_a_taken_file_leaves_the_workspace(self, store: SignatureStore) -> None:
        """What was not handed over yet is no object."""
        self.put(store, "base-1.arrow", b"one")
        (store.workspace(SYNC) / "half").write_bytes(b"ha")
        assert store.get(SYNC, "half") is None
        assert [path.name for path in store.workspace(SYNC).iterdir()] == ["half"]

    def test_rubbish_can_be_listed_and_dropped(self, store: SignatureStore) -> None:
        """Half-written files of a crash included."""
        self.put(store, "base-1.arrow", b"one")
        (store.workspace(SYNC) / "half").write_bytes(b"ha")
        store.drop(SYNC, [name for name in store.names(SYNC) if name != "base-1.arrow"])
        assert list(store.names(SYNC)) == ["base-1.arrow"]
        assert list(store.workspace(SYNC).iterdir()) == []

    def test_dropping_ignores_what_is_missing(self, store: SignatureStore) -> None:
        """And leaves the others."""
        self.put(store, "a", b"1")
        self.put(store, "b", b"2")
        store.drop(SYNC, ["a", "no such object"])
        store.drop(SYNC, ["a"])
        assert store.get(SYNC, "a") is None
        assert self.content(store, "b") == b"2"

    def test_touching_tells_what_is_missing(self, store: SignatureStore) -> None:
        """And keeps the rest."""
        self.put(store, "a", b"1")
        self.put(store, "manifest-00000001-x.json", b"2")
        there = ["a", "manifest-00000001-x.json"]
        assert list(store.touch(SYNC, there, 600)) == []
        assert list(store.touch(SYNC, [*there, "no such object"], 600)) == ["no such object"]
        assert list(store.touch(OTHER, ["a"], 600)) == ["a"]
        assert self.content(store, "a") == b"1"

    def test_syncs_do_not_see_one_another(self, store: SignatureStore) -> None:
        """Objects and pointers are per sync."""
        self.put(store, "a", b"mine")
        self.put(store, "a", b"theirs", OTHER)
        store.swap_manifest(SYNC, "manifest-1", 1)
        store.drop(OTHER, ["a"])
        assert self.content(store, "a") == b"mine"
        assert store.current_manifest(OTHER) is None

    def test_an_open_object_outlives_its_removal(self, store: SignatureStore) -> None:
        """A reader that has it open goes on reading, while a run drops it."""
        self.put(store, "a", b"one")
        path = store.get(SYNC, "a")
        assert path is not None
        with path.open("rb") as reader:
            store.drop(SYNC, ["a"])
            assert reader.read() == b"one"

    def test_it_tells_of_itself(self, store: SignatureStore) -> None:
        """Where it is, and what may have become of an object."""
        assert store.report().place
        sentence = store.why_missing(SYNC, "manifest-00000001-x.json", None, 600)
        assert sentence
        assert not sentence.endswith(".")

    def test_syncs_with_objects_are_listed(self, store: SignatureStore) -> None:
        """However many there are."""
        self.put(store, "a", b"1")
        self.put(store, "a", b"1", OTHER)
        assert sorted(store.sync_ids()) == [SYNC, OTHER]

    def test_the_pointer_moves_under_rising_tokens(
        self, store: SignatureStore, open_store: Callable[[], SignatureStore]
    ) -> None:
        """The same token may move it again; a lower one is refused and changes nothing."""
        store.swap_manifest(SYNC, "manifest-1", 5)
        store.swap_manifest(SYNC, "manifest-2", 5)
        store.swap_manifest(SYNC, "manifest-3", 7)
        with pytest.raises(Fenced):
            store.swap_manifest(SYNC, "manifest-4", 6)
        assert open_store().current_manifest(SYNC) == "manifest-3"
        store.swap_manifest(SYNC, None, 8)
        assert open_store().current_manifest(SYNC) is None
        with pytest.raises(Fenced):
            store.swap_manifest(SYNC, "manifest-4", 7)
