"""Accept that fields of a source are other than they were: the next full run takes them as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from rundiff.baseline.manifest import Manifest
from rundiff.database.contract import StoredSync
from rundiff.engine.candidate import publish
from rundiff.engine.inspect import current_manifest
from rundiff.engine.session import Session, generation_of
from rundiff.errors import BaselineLost, ConfigurationError, StateChanged

__all__ = ["accept_fields"]


def accept_fields(
    session: Session, fields: Sequence[str], renamed: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Note in the baseline that these fields may have another type, be new or be gone; gives their names.

    `renamed` are other names of fields, by the former ones, in place of any accepted before. Without either, `fields`
    are those that the last run met. Raises `ConfigurationError` where there are none, or one is of the primary key
    or of no run.
    """
    renamed = renamed or {}
    sync, name = session.sync, session.sync.name
    manifest = _manifest(session)
    runs = session.backends.database.runs(sync.sync_id, 1)
    met = runs[0].details.get("drift", []) if runs else []
    known = dict.fromkeys([*manifest.pins, *met, *manifest.renamed.values(), *renamed.values()])
    if not fields and not renamed:
        fields = met
    if not fields and not renamed:
        raise ConfigurationError(
            f"sync {name}: the last run met no field that is other than it was, so there is nothing to accept; name "
            f"the fields, as in `rundiff schema accept {name} FIELD`"
        )
    _check_names(sync, manifest, renamed)
    for field in [*fields, *renamed]:
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
    former = {new: old for old, new in renamed.items()}
    accepted = msgspec.structs.replace(
        manifest,
        accepted={
            **manifest.accepted,
            **{field: manifest.pins.get(former.get(field, field)) for field in fields},
        },
        renamed=dict(renamed),
        generation=max(sync.generation, generation_of(store.current_manifest(sync.sync_id))) + 1,
    )
    publish(store, accepted)
    sync = msgspec.structs.replace(sync, manifest=accepted.name, generation=accepted.generation)
    session.backends.database.set_sync(sync, session.token)
    session.sync = sync
    store.swap_manifest(sync.sync_id, accepted.name, session.token)
    return (*fields, *renamed.values())


def _check_names(sync: StoredSync, manifest: Manifest, renamed: Mapping[str, str]) -> None:
    for old, new in renamed.items():
        if old not in manifest.pins:
            raise ConfigurationError(
                f"sync {sync.name}: the baseline knows no field {old} that could have got the name {new}; it has "
                f"{', '.join(name for name in manifest.pins if name not in sync.primary_key)}"
            )
        if new in manifest.pins or list(renamed.values()).count(new) > 1:
            raise ConfigurationError(
                f"sync {sync.name}: {new} is a field by itself, which the baseline knows or another field got the "
                f"name of, so {old} can't have become it. `rundiff schema {sync.name}` lists the fields"
            )


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
