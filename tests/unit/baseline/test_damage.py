"""No damaged byte of a baseline goes unseen, and none of them brings the reader down."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from rundiff.baseline import segments
from rundiff.baseline.manifest import Manifest
from rundiff.baseline.order import SIGNATURE
from rundiff.baseline.segments import Segment, SegmentInfo, entries, write_segment
from rundiff.errors import BaselineLost


def segment(path: Path, rows: int = 3) -> SegmentInfo:
    signatures = pa.array([bytes([n]) * 32 for n in range(rows)], SIGNATURE)
    keys = pa.array([{"id": n, "at": f"place {n}"} for n in range(rows)])
    batch = entries((signatures, signatures), keys, written_run=1)
    return write_segment(path, batch.schema, [batch])


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "base.arrow"
    info = segment(path)
    read = Segment.open(path, info)
    assert (read.rows, info.rows, info.ends) == (3, 3, (path.stat().st_size,))
    assert read.batches[0].column("primary_key").to_pylist()[2] == {"id": 2, "at": "place 2"}


def test_large_files_have_the_same_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BATCH_ROWS", 100)
    one = segment(tmp_path / "one.arrow", 250)
    monkeypatch.setattr(segments, "_LARGE", 0)
    other = segment(tmp_path / "other.arrow", 250)
    assert one.checksums == other.checksums
    assert len(set(one.checksums)) == 3
    assert Segment.open(tmp_path / "one.arrow", one).rows == 250


def test_a_segment_without_entries(tmp_path: Path) -> None:
    path = tmp_path / "base.arrow"
    info = write_segment(path, Segment.empty(pa.struct([])).schema, [])
    assert Segment.open(path, info).rows == 0


@pytest.mark.parametrize("large", [1 << 20, 0], ids=["small", "large"])
def test_every_flipped_byte_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(segments, "_LARGE", large)
    path = tmp_path / "base.arrow"
    info = segment(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        # A file of its own each time: one that is mapped must not be written to.
        damaged = tmp_path / f"{place}.arrow"
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        with pytest.raises(BaselineLost, match=r"base\.arrow of the baseline is damaged in batch 0"):
            Segment.open(damaged, info)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "base.arrow"
    info = segment(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        damaged = tmp_path / f"{length}.arrow"
        damaged.write_bytes(whole[:length])
        with pytest.raises(BaselineLost, match=r"base\.arrow of the baseline"):
            Segment.open(damaged, info)
    with pytest.raises(BaselineLost, match="can't be opened"):
        Segment.open(tmp_path / "none.arrow", info)


def test_every_damaged_manifest_is_found(tmp_path: Path) -> None:
    manifest = Manifest(
        sync_id="s",
        run=1,
        generation=1,
        live=3,
        base=segment(tmp_path / "base.arrow"),
        overlay=None,
        primary_key=("id",),
        fields=("id", "v"),
        pins={"id": "integer", "v": "text"},
        signature_format=1,
        signing_key_id=None,
        invalid_keys=0,
        ends_with_newline=True,
    )
    whole = manifest.encode()
    assert Manifest.decode(manifest.name, whole) == manifest
    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :]
        with pytest.raises(BaselineLost):
            Manifest.decode(manifest.name, damaged)
    for length in range(len(whole)):
        with pytest.raises(BaselineLost):
            Manifest.decode(manifest.name, whole[:length])
