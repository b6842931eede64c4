"""The change set: what a run found, as files, before it has a number or touched anything.

A folder with the three files of a write log, `entries.arrow` for baseline entries that change
without a write record (where there are any), and `meta.json`. A plan is a change set that is kept;
a sealed run is one that got a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import chain
from pathlib import Path

import msgspec
import pyarrow as pa

from rundiff.baseline.manifest import Memory
from rundiff.baseline.segments import SegmentInfo
from rundiff.engine.log import CREATES, DELETES, UPDATES, unreadable
from rundiff.signing.rule import Form

__all__ = ["ENTRIES", "META", "Aside", "ChangeSet", "Findings", "write_entries"]

META = "meta.json"
ENTRIES = "entries.arrow"


class Aside(msgspec.Struct, frozen=True):
    """A record for the quarantine."""

    error: str
    primary_key: str | None = None
    """JSON of the key, or of the whole record where the key is not valid."""
    primary_key_signature: bytes | None = None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a reading and its comparison found."""

    sync_id: str | None
    name: str
    source: str
    primary_key: tuple[str, ...]
    destination: str
    new_action: str
    manifest: str | None
    """The manifest that the run started from."""
    baseline: str
    """`first`, `found` or `lost`."""
    baseline_records: int
    fields: tuple[str, ...]
    """The compared fields."""
    form: Form = Form()
    """What was done to their values before they were signed."""
    left_out: tuple[str, ...] | None = None
    """Fields that are not compared."""
    field_signatures: bool = False
    """Whether entries get signatures of single fields."""
    renewed: SegmentInfo | None = None
    """The entries of the baseline before, signed anew, where the run went over to another rule."""
    accepted: dict[str, str | None] | None = None
    """What is still accepted after the run (see `Manifest`); None: as before."""
    renamed: dict[str, str] = {}
    """Fields that the run found under other names, which it went over to; by the former ones."""
    drift: tuple[str, ...] = ()
    """Fields with values that don't fit their types."""
    rekeyed: bool = False
    """Whether that was under another signing key, too."""
    pins: dict[str, str]
    complete: bool
    reasons: tuple[str, ...]
    """Why the reading was incomplete."""
    ends_with_newline: bool | None
    newlines: dict[str, bool] = {}
    signing_key_id: str | None
    counts: dict[str, int]
    """The counts of `--json` as far as reading tells them; `deleted` before guards."""
    samples: dict[str, tuple[str, ...]]
    warnings: tuple[str, ...]
    hold_deletions: str | None = None
    hold_run: str | None = None
    digest: str = ""
    """SHA-256 over what would be held or approved."""
    extra_entries: int = 0
    """Keys that the baseline gains without a write record; its other entries are of keys that it holds."""
    repeated: int = 0
    """Deletions among `deleted` that were written before."""
    aside: tuple[Aside, ...] = ()
    """Records that were set aside before they became write records."""
    existing: int = 0
    """At a first run: keys that the destination held already."""
    signer: str = "python"
    scope: str = "full"
    memory: Memory | None = None
    """What the baseline is to keep of this run; None: what it kept before."""
    expires_at: datetime | None = None
    """Until when what a guard holds can be approved."""
    approvable_hours: float = 168.0
    """How long that is; a plan's time begins when it is applied."""
    misses: int = 0
    """Keys with misses that are not deleted yet, after this run."""

    @property
    def whole(self) -> bool:
        """Whether the reading proves of every key whether the source has it."""
        return self.complete and self.scope == "full"


class ChangeSet(msgspec.Struct, frozen=True):
    """A change set's folder and its findings."""

    folder: Path
    findings: Findings

    @property
    def deletes(self) -> Path:
        """Write records that delete."""
        return self.folder / DELETES

    @property
    def updates(self) -> Path:
        """Write records that update."""
        return self.folder / UPDATES

    @property
    def creates(self) -> Path:
        """Write records that create."""
        return self.folder / CREATES

    @property
    def entries(self) -> Path:
        """Baseline entries without write records."""
        return self.folder / ENTRIES

    def save(self) -> None:
        """Write the findings."""
        (self.folder / META).write_bytes(msgspec.json.format(msgspec.json.encode(self.findings), indent=1))

    @classmethod
    def load(cls, folder: Path) -> ChangeSet:
        """Read a saved change set; raises `StorageError` if it is missing or damaged."""
        path = folder / META
        try:
            return cls(folder, msgspec.json.decode(path.read_bytes(), type=Findings))
        except (OSError, msgspec.DecodeError) as error:
            raise unreadable(path, error) from error


def write_entries(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write baseline entries that have no write record, all of one schema; gives how many.

    Of none there is no file.
    """
    given = iter(batches)
    first = next(given, None)
    if first is None:
        return 0
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        for batch in chain([first], given):
            writer.write_batch(batch)
            rows += int(batch.num_rows)
    return rows
