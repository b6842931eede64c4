"""One sync, opened for writing: its row, its lease, its destination, its baseline."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.manifest import Manifest
from rundiff.database.contract import Database, StoredSync
from rundiff.database.logs import WriteLog
from rundiff.destinations.contract import Destination, Target
from rundiff.engine.home import Home
from rundiff.engine.keeping import keep_alive, missing, store_warnings
from rundiff.engine.lease import Lease
from rundiff.engine.views import Progress
from rundiff.errors import BaselineLost, ConfigurationError, SyncMismatch
from rundiff.settings import DestinationOptions, SyncSettings
from rundiff.signing import SigningKey
from rundiff.stores.contract import SignatureStore

__all__ = [
    "Backends",
    "Session",
    "StoredDestination",
    "generation_of",
    "open_baseline",
    "refuse_other",
    "store_destination",
]


class Backends(msgspec.Struct, frozen=True, kw_only=True):
    """What all runs of a workspace share."""

    home: Home
    database: Database
    log: WriteLog
    store: SignatureStore
    signing_key: SigningKey | None
    retention_days: float
    former_keys: tuple[SigningKey | None, ...] = ()
    """While the signing key is rotated: the one before, None if there was none."""
    progress: Callable[[Progress], None] | None = None


class StoredDestination(msgspec.Struct, frozen=True):
    """A destination as the database keeps it: without secrets, with absolute paths."""

    identity: str
    url: str | None
    into: str | None
    mode: str = "mirror"
    particular: dict[str, Any] = msgspec.field(default_factory=dict)
    """The options that only this kind of destination knows, but for secret ones."""

    def encode(self) -> str:
        """Give it as JSON."""
        stored: dict[str, Any] = {
            "identity": self.identity,
            "url": self.url,
            "into": self.into,
            "mode": self.mode,
        }
        if self.particular:
            stored["particular"] = self.particular
        return json.dumps(stored)

    @property
    def options(self) -> dict[str, Any]:
        """Give the keywords of `DestinationOptions` that lead there."""
        return {"url": self.url, "into": self.into, "mode": self.mode, **self.particular}

    @property
    def place(self) -> str:
        """The identity without the mode: what another sync would write to, too."""
        return self.identity.removesuffix(f"?mode={self.mode}")

    @classmethod
    def decode(cls, text: str) -> StoredDestination:
        """Read it from JSON."""
        return cls(**json.loads(text))


def store_destination(options: DestinationOptions, identity: str) -> StoredDestination:
    """Drop the password from a destination's URL and make its path absolute."""
    particular = {name: _reference(value) for name, value in options.particular.items()}
    return StoredDestination(identity, _without_login(options.url), options.into, options.mode, particular)


def _without_login(url: str | None) -> str | None:
    if url is None or url == "-":
        return url
    if "://" not in url:
        return str(Path(url).resolve())
    scheme, rest = url.split("://", 1)
    if scheme in ("sqlite", "duckdb"):
        return f"{scheme}:///{Path(rest.removeprefix('/')).resolve()}"
    split = urlsplit(url)
    if scheme.lower() in ("http", "https"):
        # A query may hold a secret, too.
        split = split._replace(query="")
    host = split.netloc.rpartition("@")
    user = host[0].partition(":")[0]
    netloc = f"{user}@{host[2]}" if user else host[2]
    return urlunsplit(split._replace(netloc=netloc))


def _reference(value: Any) -> Any:
    """Name a Python function, so that a later process may find it again."""
    return f"{value.__module__}:{value.__qualname__}" if callable(value) else value


class Session:
    """A sync with its lease held; leaving it gives the lease back."""

    def __init__(
        self, backends: Backends, sync: StoredSync, lease: Lease, destination: Destination | None
    ) -> None:
        self.backends = backends
        self.sync = sync
        self.lease = lease
        self._destination = destination
        self.warnings: list[str] = []

    @classmethod
    def open(
        cls,
        backends: Backends,
        settings: SyncSettings,
        destination: Destination,
        source: str,
        *,
        joined: str | None = None,
    ) -> Session:
        """Find or create the sync of these settings and take its lease.

        Raises `SyncMismatch` if it is stored with another key or destination, and `SyncBusy`. `joined` names
        the joined run that is to be sealed.
        """
        database = backends.database
        wanted, known = refuse_other(backends, settings, destination, source)
        sync = known or database.create(wanted)
        session = cls.take(backends, sync, destination, wait=settings.wait, joined=joined)
        try:
            sync = database.get(sync.sync_id)
            if sync.established:
                # Another process may have made its first run meanwhile.
                _refuse_mismatch(sync, wanted, named=settings.named)
            described = wanted if not sync.established else _described(sync, wanted)
            session.sync = msgspec.structs.replace(
                sync,
                source=described.source,
                primary_key=described.primary_key,
                destination=described.destination,
                shared_table=described.shared_table,
            )
            database.describe(session.sync, session.lease.token)
            session.warnings.extend(store_warnings(backends, session.sync))
        except BaseException:
            session.close()
            raise
        return session

    @classmethod
    def take(
        cls,
        backends: Backends,
        sync: StoredSync,
        destination: Destination | None,
        *,
        wait: bool = False,
        joined: str | None = None,
    ) -> Session:
        """Take the lease of a sync that exists."""
        lease = Lease.take(
            backends.home.lock(sync.sync_id),
            backends.database,
            (sync.sync_id, sync.name),
            wait=wait,
            joined=joined,
        )
        session = cls(backends, sync, lease, destination)
        session.refresh()
        return session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lease back and let go of the destination."""
        try:
            if self._destination is not None:
                self._destination.close()
        finally:
            self.lease.release()

    def refresh(self) -> None:
        """Read the sync's row again."""
        self.sync = self.backends.database.get(self.sync.sync_id)

    @property
    def destination(self) -> Destination:
        """The opened destination."""
        if self._destination is None:
            raise ConfigurationError(f"sync {self.sync.name}: this needs the sync's destination")
        return self._destination

    @property
    def token(self) -> int:
        """The fencing token."""
        return self.lease.token

    @property
    def target(self) -> Target:
        """Who writes to the destination."""
        return Target(
            sync_id=self.sync.sync_id,
            sync=self.sync.name,
            primary_key=self.sync.primary_key,
            token=self.token,
        )

    def log(self, run: int) -> Path:
        """The write log of one of this sync's runs."""
        return self.backends.log.folder(self.sync.sync_id, run)


def refuse_other(
    backends: Backends, settings: SyncSettings, destination: Destination, source: str
) -> tuple[StoredSync, StoredSync | None]:
    """Give the sync that the settings ask for, and the stored one; raises `SyncMismatch`."""
    stored = store_destination(settings.destination, destination.identity)
    wanted = StoredSync(
        sync_id=str(uuid.uuid4()),
        name=settings.name,
        source=backends.home.relative(source),
        primary_key=settings.primary_key,
        destination=stored.encode(),
        shared_table=settings.destination.shared_table,
        established=False,
        created_at=datetime.now(UTC),
        token=0,
        manifest=None,
        generation=0,
        acknowledged=None,
        held=None,
    )
    _refuse_second_sync(backends.database, wanted)
    known = backends.database.find(settings.name)
    if known is not None and known.established:
        _refuse_mismatch(known, wanted, named=settings.named)
    return wanted, known


def _described(sync: StoredSync, wanted: StoredSync) -> StoredSync:
    # The identities are equal; the URL may be spelled anew, the source may have moved.
    return wanted if sync.primary_key == wanted.primary_key else sync


def _refuse_mismatch(known: StoredSync, wanted: StoredSync, *, named: bool) -> None:
    name = known.name
    way_out = f"Use --name for another sync, or `rundiff reset {name}` to start this one anew"
    if known.primary_key != wanted.primary_key:
        raise SyncMismatch(
            f"sync {name} has the primary key {', '.join(known.primary_key)}, not "
            f"{', '.join(wanted.primary_key)}. {way_out}"
        )
    before = StoredDestination.decode(known.destination).identity
    after = StoredDestination.decode(wanted.destination).identity
    if before != after:
        raise SyncMismatch(f"sync {name} delivers to {before}, not to {after}. {way_out}")
    if not named and known.source != wanted.source:
        raise SyncMismatch(
            f"sync {name} reads {known.source}, not {wanted.source}. Say --name {name} if both are the same "
            f"source, use another --name for another sync, or `rundiff reset {name}` to start this one anew"
        )


def _refuse_second_sync(database: Database, wanted: StoredSync) -> None:
    stored = StoredDestination.decode(wanted.destination)
    if stored.url in (None, "-"):
        return
    for other in database.syncs():
        if (
            other.name != wanted.name
            and other.established
            and (theirs := StoredDestination.decode(other.destination)).place == stored.place
            # Rows that one sync marks or keeps and another one deletes would be nobody's.
            and not (other.shared_table and wanted.shared_table and theirs.mode == stored.mode)
        ):
            raise SyncMismatch(
                f"sync {wanted.name} would write to {stored.place}, which sync {other.name} writes already. "
                f"Use --name {other.name} to go on with that sync, another --into, or --shared-table and one "
                "--mode on both"
            )


def open_baseline(
    backends: Backends, sync: StoredSync, manifest: str | None, *, touch: bool = True
) -> Baseline:
    """Open the baseline that the database names; raises `BaselineLost`.

    Without `touch` it is taken for whole: who commits has touched it a moment ago.
    """
    store = backends.store
    if generation_of(store.current_manifest(sync.sync_id)) > sync.generation:
        raise BaselineLost(
            "the signature store holds a newer baseline than the database knows: the database was restored "
            "from an older copy",
            rebuildable=False,
        )
    if manifest is None:
        return Baseline.empty()

    def find(name: str) -> Path:
        path = store.get(sync.sync_id, name)
        if path is None:
            raise missing(backends, sync, manifest, name)
        return path

    opened = Manifest.decode(manifest, find(manifest).read_bytes())
    baseline = Baseline.open(opened, find)
    if touch:
        keep_alive(backends, sync, manifest, opened.objects)
    return baseline


def generation_of(manifest: str | None) -> int:
    """Read the generation out of a manifest's name; 0 for none."""
    part = manifest.split("-")[1] if manifest is not None and manifest.count("-") >= 2 else ""
    return int(part) if part.isdigit() else 0
