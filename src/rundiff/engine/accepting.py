"""Accept that fields of a source are other than they were: the next full run takes them as they come."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from rundiff.baseline.manifest import Manifest
from rundiff.engine.candidate import publish
from rundiff.engine.inspect import current_manifest
from rundiff.engine.session import Session, generation_of
from rundiff.errors import BaselineLost, ConfigurationError, StateChanged

__all__ = ["accept_fields"]


def accept_fields(session: Session, fields: Sequence[str]) -> tuple[str, ...]:
    """Note in the baseline that these fields may have another type, be new or be gone; gives their names.

    Without `fields`, those that the last run met as such. Raises `ConfigurationError` where there are none, or
    one is of the primary key or of no run.
    """
    sync, name = session.sync, session.sync.name
    manifest = _manifest(session)
    runs = session.backends.database.runs(sync.sync_id, 1)
    met = runs[0].details.get("drift", []) if runs else []
    known = dict.fromkeys([*manifest.pins, *met])
    if not fields:
        fields = met
    if not fields:
        raise ConfigurationError(
            f"sync {name}: the last run met no field that is other than it was, so there is nothing to accept; name "
            f"the fields, as in `rundiff schema accept {name} FIELD`"
        )
    for field in fields:
        if field in sync.primary_key:
            raise ConfigurationError(
                f"sync {name}: {field} is a field of the primary key, by which its records are known, and can't "
                f"change. Mend the source, use another --name, or `rundiff reset {name}` to start the sync anew"
            )
        if field not in known:
            free = [one for one in known if one not in sync.primary_key]
            raise ConfigurationError(
                f"sync {name}: no run has met a field {field}, so there is nothing to accept. Give a field that the "
                f"baseline knows or that the last run met: {', '.join(free) or 'there is none beside the key'}"
            )
    store = session.backends.store
    accepted = structs.replace(
        manifest,
        accepted={**manifest.accepted, **{field: manifest.pins.get(field) for field in fields}},
        generation=max(sync.generation, generation_of(store.current_manifest(sync.sync_id))) + 1,
    )
    publish(store, accepted)
    sync = structs.replace(sync, manifest=accepted.name, generation=accepted.generation)
    session.backends.database.set_sync(sync, session.token)
    session.sync = sync
    store.swap_manifest(sync.sync_id, accepted.name, session.token)
    return tuple(fields)


def _manifest(session: Session) -> Manifest:
    sync, name = session.sync, session.sync.name
    unfinished = session.backends.database.unfinished(sync.sync_id)
    if unfinished:
        raise StateChanged(
            f"sync {name}: run {unfinished[0].run} is not finished; `rundiff sync` finishes it first"
        )
    if sync.held is not None and sync.held.what == "run":
        raise StateChanged(
            f"sync {name}: a whole run is held, which was judged against this baseline; `rundiff approve {name}` or "
            f"`rundiff discard {name}` first"
        )
    manifest = current_manifest(session.backends, sync)
    if manifest is not None:
        return manifest
    if sync.manifest is None:
        raise ConfigurationError(f"sync {name} has no committed run yet, so its fields are not pinned")
    raise BaselineLost(f"sync {name}: the baseline is lost; `rundiff rebuild {name}` first")
