"""All signature stores against the one suite, and what is the file store's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rundiff.stores.contract import SignatureStore
from rundiff.stores.files import FileStore
from rundiff.testing.stores import SYNC, StoreSuite


class TestFiles(StoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], SignatureStore]:
        return lambda: FileStore(tmp_path / "signatures")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"manifest": "m"}', b"\xff\xfe", b'{"token": "x"}']
)
def test_a_damaged_pointer_says_nothing_and_is_written_anew(tmp_path: Path, content: bytes) -> None:
    store = FileStore(tmp_path)
    store.swap_manifest(SYNC, "manifest-1", 9)
    (tmp_path / SYNC / "current.json").write_bytes(content)
    assert store.current_manifest(SYNC) is None
    store.swap_manifest(SYNC, "manifest-2", 3)
    assert store.current_manifest(SYNC) == "manifest-2"


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "signatures")
    assert (store.get(SYNC, "a"), list(store.names(SYNC)), store.current_manifest(SYNC)) == (None, [], None)
    assert list(tmp_path.iterdir()) == []
