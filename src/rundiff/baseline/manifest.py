"""Manifests: what a baseline consists of, and how it was signed.

A manifest is an immutable JSON object. The database's row that names it is the only commit point;
everything it names is durable before that.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

from rundiff.baseline.segments import SegmentInfo
from rundiff.errors import BaselineLost
from rundiff.signing.rule import Form, Rule

__all__ = ["MANIFEST_VERSION", "Cursor", "Manifest", "Memory", "Rename"]

MANIFEST_VERSION = 1


class Cursor(msgspec.Struct, frozen=True):
    """The highest value of the cursor field that was read."""

    field: str
    type: str
    """Its pinned type."""
    value: str
    """As Arrow casts it to text."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a baseline keeps of the runs before it, for scopes, grace and guards."""

    partition_by: tuple[str, ...] = ()
    """The fields whose values part the records; the segments' `partition` is over these, in any order."""
    cursor: Cursor | None = None
    pending: int = 0
    """How many live keys have misses, at least."""
    full_at: datetime | None = None
    """When the last complete full run began."""
    recent: tuple[int, ...] = ()
    """How many records the last complete full runs read, oldest first."""


class Rename(msgspec.Struct, frozen=True):
    """A field that got another name."""

    run: int
    """The run that went over to it; write logs of runs before it have the former one."""
    old: str
    new: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One state of a baseline."""

    version: int = MANIFEST_VERSION
    sync_id: str
    run: int
    """The run that left it."""
    generation: int
    """Counts the manifests of a sync from 1; never goes back, not even by a rollback."""
    live: int
    """How many live keys it holds."""
    base: SegmentInfo
    overlay: SegmentInfo | None
    primary_key: tuple[str, ...]
    fields: tuple[str, ...]
    """The compared fields."""
    form: Form = Form()
    """What was done to their values before they were signed."""
    left_out: tuple[str, ...] | None = None
    """Fields that had values and were not compared; None: all that `fields` lacks."""
    rekeyed_run: int = 0
    """The run that went over to the present signing key; write logs before it may be under others."""
    pins: dict[str, str]
    """Pinned types of all fields."""
    accepted: dict[str, str | None] = {}
    """Fields that the next full run takes as they come, with their types before; None: not known before."""
    renamed: dict[str, str] = {}
    """Other names that the next full run may find fields under, by the former ones."""
    renames: tuple[Rename, ...] = ()
    """Those that earlier runs went over to, in order."""
    signature_format: int
    signing_key_id: str | None
    invalid_keys: int = 0
    """Of the last complete run."""
    ends_with_newline: bool | None = None
    """Of the last complete run, for text sources."""
    newlines: dict[str, bool] = {}
    """The same for each file."""
    memory: Memory = Memory()

    @property
    def excluded(self) -> frozenset[str]:
        """The fields that had values and were not compared."""
        return frozenset(set(self.pins) - set(self.fields) if self.left_out is None else self.left_out)

    @property
    def rule(self) -> Rule:
        """How its data signatures were made."""
        return Rule(
            fields=self.fields,
            form=self.form,
            signing_key_id=self.signing_key_id,
            signature_format=self.signature_format,
        )

    def encode(self) -> bytes:
        """Give the manifest as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @property
    def name(self) -> str:
        """The object's name: its generation and a digest of its content."""
        return _name(self.generation, self.encode())

    @classmethod
    def decode(cls, name: str, content: bytes) -> Manifest:
        """Read a manifest and check it against its name; raises `BaselineLost` if it is damaged."""
        # By the bytes as they are: what another version would write for them does not matter.
        generation = name.split("-")[1] if name.count("-") == 2 else ""
        if not generation.isdigit() or _name(int(generation), content) != name:
            raise BaselineLost(f"{name} is damaged: its content does not match its name")
        try:
            manifest = msgspec.json.decode(content, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BaselineLost(
                f"{name} can't be read as a manifest; upgrade Rundiff if it is newer"
            ) from error
        if manifest.version > MANIFEST_VERSION:
            raise BaselineLost(f"{name} was written by a newer Rundiff; upgrade this one")
        return manifest

    @property
    def objects(self) -> tuple[str, ...]:
        """The names of the segments it needs."""
        return tuple(s.name for s in (self.base, self.overlay) if s is not None)


def _name(generation: int, content: bytes) -> str:
    return f"manifest-{generation:08d}-{hashlib.sha256(content).hexdigest()[:32]}.json"
