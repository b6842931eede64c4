"""The signature store on Redis or Valkey, a single server, behind sentinels, or a cluster.

Keys, of which every one expires by itself (S is a sync's id, N an object's name):

```
PREFIX:syncs             sorted set: sync ids, by the time at which they may be forgotten
PREFIX:{S}:names         hash: names of objects and the numbers of their blobs
PREFIX:{S}:pointer       hash: current manifest and fencing token
PREFIX:{S}:object:N      how the object was cut (see `blob_plans`), or the object itself if it is small
PREFIX:{S/7}:N:112       a blob; 16 in a row share a hash slot, so that a cluster takes them in one command
```

An object is there once its `object:` key is, which is written last; one that lacks a blob is missing. The
server's clock decides what has expired. Memory beside the blobs is about 1 % of it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rundiff.ahead import ahead
from rundiff.errors import BaselineLost, Fenced
from rundiff.stores.blob_plans import BLOB_BYTES, DamagedBlobs, Plan, plan_of
from rundiff.stores.blobs import cut, join
from rundiff.stores.cache import LocalCopies
from rundiff.stores.contract import LIFETIME, StoreReport, is_manifest
from rundiff.stores.redis_link import Command, Link
from rundiff.stores.redis_loss import Loss, reason
from rundiff.stores.redis_place import Place, read_place

__all__ = ["RedisStore", "open_redis"]

GROUP = 16
"""Blobs in a row that share a hash slot: 260 kB in one MGET, which holds the server up for a millisecond or two."""
SHARDS = 64
"""Hash slots that one sync's blobs are spread over."""
_GROUPS_AHEAD = 16
"""Groups of blobs that are fetched ahead: 4 MB."""
SEGMENTS_LONGER = 3600
"""Seconds that segments outlive their manifest, so that a manifest never names what has expired."""
_REMEMBERED = 90 * 24 * 3600

_EXPIRE = """
local found = 0
for i = 1, #KEYS do found = found + redis.call('EXPIRE', KEYS[i], ARGV[1]) end
return found
"""
_SWAP = """
local token = tonumber(redis.call('HGET', KEYS[1], 'token') or '0')
if token > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'manifest', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


def open_redis(url: str, cache: Path) -> RedisStore:
    """Open the store of a URL; connects at the first use. Raises `ConfigurationError`."""
    return RedisStore(read_place(url), cache)


class RedisStore:
    """Objects cut into blobs; see the module."""

    def __init__(self, place: Place, cache: Path) -> None:
        self._place = place
        self._link = Link(place)
        self._copies = LocalCopies(cache)

    # Keys

    def _syncs(self) -> str:
        return f"{self._place.prefix}:syncs"

    def _key(self, sync_id: str, what: str) -> str:
        return f"{self._place.prefix}:{{{sync_id}}}:{what}"

    def _blob_keys(self, sync_id: str, name: str, blobs: int) -> Iterator[list[str]]:
        """Give the keys of an object's blobs, in groups of one hash slot each."""
        for start in range(0, blobs, GROUP):
            tag = f"{self._place.prefix}:{{{sync_id}/{start // GROUP % SHARDS}}}:{name}"
            yield [f"{tag}:{number}" for number in range(start, min(blobs, start + GROUP))]

    # Objects

    def workspace(self, sync_id: str) -> Path:
        """Give the local folder of half-written files."""
        return self._copies.workspace(sync_id)

    def put(self, sync_id: str, path: Path) -> None:
        """Cut a file into blobs and send them; the file becomes the local copy."""
        name = path.name
        plan, content = plan_of(path)
        seconds = _lifetime(name, LIFETIME)
        self._note(sync_id, name, plan.blobs, seconds)
        blobs = cut(plan, content)
        keys = (key for group in self._blob_keys(sync_id, name, plan.blobs) for key in group)
        sent = self._link.run(
            Command(key, ("SET", key, blob, "EX", seconds)) for key, blob in zip(keys, blobs, strict=True)
        )
        for _ in sent:
            pass
        key = self._key(sync_id, f"object:{name}")
        self._link.one(key, "SET", key, plan.encode(), "EX", seconds)
        content.release()
        self._copies.keep(sync_id, path)

    def _note(self, sync_id: str, name: str, blobs: int, seconds: int) -> None:
        """Remember a name before anything is stored under it, so that what a crash leaves can be dropped."""
        names = self._key(sync_id, "names")
        until = int(datetime.now(UTC).timestamp()) + _REMEMBERED
        commands = [
            Command(names, ("HSET", names, name, blobs)),
            *self._keep_index(sync_id, seconds),
            Command(self._syncs(), ("ZADD", self._syncs(), until, sync_id)),
            Command(self._syncs(), ("EXPIRE", self._syncs(), _REMEMBERED)),
        ]
        for _ in self._link.run(commands):
            pass

    def _keep_index(self, sync_id: str, seconds: int) -> list[Command]:
        names = self._key(sync_id, "names")
        # Never shorter than what the objects of earlier runs may still have.
        longest = max(seconds, _lifetime("", LIFETIME)) + SEGMENTS_LONGER
        return [Command(names, ("EXPIRE", names, longest))]

    def get(self, sync_id: str, name: str) -> Path | None:
        """Give the local copy, fetched if need be. Raises `BaselineLost` if what the server has is damaged."""
        key = self._key(sync_id, f"object:{name}")
        header = self._link.one(key, "GET", key)
        if header is None:
            return None
        try:
            plan = Plan.decode(header)
            copy = self._copies.find(sync_id, name, plan.size, plan.digest)
            if copy is not None:
                return copy
            with closing(self._blobs(sync_id, name, plan.blobs)) as blobs:
                return self._copies.make(sync_id, name, lambda path: join(plan, blobs, path))
        except DamagedBlobs as error:
            raise BaselineLost(f"{name} is damaged in the signature store: {error}") from error
        except _Incomplete:
            return None

    def _blobs(self, sync_id: str, name: str, blobs: int) -> Generator[bytes, None, None]:
        commands = (Command(group[0], ("MGET", *group)) for group in self._blob_keys(sync_id, name, blobs))
        # The next megabytes travel while these are written.
        with closing(
            ahead(self._link.run(commands, reply_bytes=GROUP * BLOB_BYTES), _GROUPS_AHEAD)
        ) as groups:
            for group in groups:
                for blob in group:
                    if blob is None:
                        raise _Incomplete
                    yield blob

    def touch(self, sync_id: str, names: Iterable[str], seconds: float) -> Sequence[str]:
        """Let objects expire only after that many seconds from now; an object that lacks a blob is missing."""
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return []
        counts = self._counts(sync_id, wanted)
        commands: list[Command] = []
        owners: list[tuple[str, int]] = []
        for name in wanted:
            lifetime = _lifetime(name, seconds)
            groups = [[self._key(sync_id, f"object:{name}")]]
            groups += self._blob_keys(sync_id, name, counts.get(name, 0))
            for keys in groups:
                owners.append((name, len(keys)))
                commands.append(Command(keys[0], ("EVAL", _EXPIRE, len(keys), *keys, lifetime)))
        found = list(self._link.run(commands))
        lacking = {owner for (owner, keys), there in zip(owners, found, strict=True) if there < keys}
        pointer = self._key(sync_id, "pointer")
        until = int(datetime.now(UTC).timestamp()) + _REMEMBERED
        keeping = [
            *self._keep_index(sync_id, int(seconds)),
            Command(pointer, ("EXPIRE", pointer, _lifetime("manifest-", seconds))),
            Command(self._syncs(), ("ZADD", self._syncs(), "XX", until, sync_id)),
            Command(self._syncs(), ("EXPIRE", self._syncs(), _REMEMBERED)),
        ]
        for _ in self._link.run(keeping):
            pass
        return [name for name in wanted if name in lacking]

    def _counts(self, sync_id: str, names: Sequence[str]) -> dict[str, int]:
        """Give the numbers of blobs of the objects that are there: by what was noted, else by their plans."""
        noted = self._key(sync_id, "names")
        counts = {}
        for name, count in zip(names, self._link.one(noted, "HMGET", noted, *names), strict=True):
            if count is not None:
                counts[name] = int(count)
                continue
            key = self._key(sync_id, f"object:{name}")
            header = self._link.one(key, "GET", key)
            if header is not None:
                # The list of names went away before what it names.
                with_plan = _decoded(header)
                counts[name] = 0 if with_plan is None else with_plan.blobs
        return counts

    def drop(self, sync_id: str, names: Iterable[str]) -> None:
        """Remove objects, first what says that they are there."""
        gone = list(names)
        self._copies.drop(sync_id, gone)
        stored = [name for name in gone if "/" not in name]
        if not stored:
            return
        counts = self._counts(sync_id, stored)
        commands = []
        for name in stored:
            key = self._key(sync_id, f"object:{name}")
            commands.append(Command(key, ("UNLINK", key)))
            for keys in self._blob_keys(sync_id, name, counts.get(name, 0)):
                commands.append(Command(keys[0], ("UNLINK", *keys)))
        noted = self._key(sync_id, "names")
        commands.append(Command(noted, ("HDEL", noted, *stored)))
        for _ in self._link.run(commands):
            pass

    def sync_ids(self) -> Sequence[str]:
        """List the syncs; those that were not touched for 90 days are forgotten."""
        key = self._syncs()
        now = int(datetime.now(UTC).timestamp())
        self._link.one(key, "ZREMRANGEBYSCORE", key, "-inf", now)
        return sorted(self._scanned(key, "ZSCAN"))

    def names(self, sync_id: str) -> Sequence[str]:
        """List the objects that were not dropped, and half-written local files as `new/…`."""
        stored = sorted(self._scanned(self._key(sync_id, "names"), "HSCAN"))
        return stored + list(self._copies.unfinished(sync_id))

    def _scanned(self, key: str, command: str) -> set[str]:
        """Collect the members of a collection, some hundreds at a time."""
        found: set[str] = set()
        cursor = 0
        while True:
            cursor, page = self._link.one(key, command, key, cursor, "COUNT", 500)
            found.update(_text(member[0] if isinstance(member, tuple | list) else member) for member in page)
            if int(cursor) == 0:
                return found

    # The pointer

    def swap_manifest(self, sync_id: str, manifest: str | None, token: int) -> None:
        """Set the pointer by a script on the server, unless it was set under a higher token."""
        key = self._key(sync_id, "pointer")
        lifetime = _lifetime("manifest-", LIFETIME)
        if not self._link.one(key, "EVAL", _SWAP, 1, key, token, manifest or "", lifetime):
            raise Fenced(
                "another run has taken this sync over and committed since; this run's result is not used"
            )

    def current_manifest(self, sync_id: str) -> str | None:
        """Read the pointer."""
        key = self._key(sync_id, "pointer")
        return _text(self._link.one(key, "HGET", key, "manifest") or b"") or None

    # About itself

    def report(self) -> StoreReport:
        """Ask every node for its version and its policy of eviction."""
        nodes = self._link.info("server", "memory")
        first = nodes[0]
        if "valkey_version" in first:
            version = f"Valkey {first['valkey_version']}"
        else:
            version = f"Redis {first.get('redis_version', 'of an unknown version')}"
        if len(nodes) > 1:
            version += f", a cluster of {len(nodes)}"
        policies = {str(node.get("maxmemory_policy", "noeviction")) for node in nodes} - {"noeviction"}
        warnings = []
        if policies:
            named = ", ".join(sorted(policies))
            limit = (
                ""
                if any(node.get("maxmemory") for node in nodes)
                else ", once a limit is set (maxmemory is 0)"
            )
            warnings.append(
                f"The signature store {self._place.shown} may drop baselines when its memory is full{limit}: its "
                f"maxmemory-policy is {named}. Set it to noeviction, or keep baselines on a server of their own."
            )
        return StoreReport(place=self._place.shown, version=version, expires=True, warnings=tuple(warnings))

    def why_missing(self, sync_id: str, manifest: str, since: datetime | None, seconds: float) -> str:
        """Judge by the server's clock, its uptime, its evictions and what else it holds."""
        nodes = self._link.info("server", "stats", "memory", "replication")
        names = self._key(sync_id, "names")
        noted = int(self._link.one(names, "EXISTS", names))
        anything = int(self._link.one(self._syncs(), "EXISTS", self._syncs()))
        return reason(
            nodes,
            Loss(
                manifest=manifest,
                pointer=self.current_manifest(sync_id),
                of_sync=bool(noted),
                of_anyone=bool(anything),
                since=since,
                seconds=seconds,
                now=self._now(),
            ),
        )

    def _now(self) -> datetime:
        told = self._link.one(self._syncs(), "TIME")
        return datetime.fromtimestamp(int(told[0]), UTC)

    def close(self) -> None:
        """Let go of the connections and of the local copies."""
        self._link.close()
        self._copies.release()


class _Incomplete(Exception):
    """A blob of an object is missing."""


def _decoded(header: bytes) -> Plan | None:
    try:
        return Plan.decode(header)
    except DamagedBlobs:
        return None


def _lifetime(name: str, seconds: float) -> int:
    whole = max(1, int(seconds))
    return whole if is_manifest(name) else whole + SEGMENTS_LONGER


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
