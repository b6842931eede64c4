"""When a table's rows can't be taken over: the sync has a baseline, or some rows may be another sync's."""

from __future__ import annotations

from collections.abc import Sequence

from rundiff.database.contract import StoredSync
from rundiff.destinations.contract import Destination, Readable, Target
from rundiff.destinations.modes import MODE_FIELDS, Mode
from rundiff.engine.session import Backends, StoredDestination
from rundiff.errors import ConfigurationError, StateChanged
from rundiff.settings import SyncSettings

__all__ = ["refuse_known", "refuse_marked", "refuse_shared"]


def refuse_known(sync: StoredSync) -> None:
    """Raise `StateChanged` for a sync that has a baseline."""
    if sync.manifest is not None:
        raise StateChanged(
            f"sync {sync.name} has a baseline already, and goes on from it; `rundiff verify {sync.name}` compares it "
            f"with the destination. To start from what the destination holds instead, `rundiff reset {sync.name}` first"
        )


def refuse_shared(backends: Backends, settings: SyncSettings, where: tuple[Destination, Target]) -> None:
    """Raise `ConfigurationError` for a table that other syncs deliver to, or may: whose rows are whose?

    Every adopted row that the source does not have is deleted by the next complete run, so another sync's
    rows would be lost.
    """
    destination, target = where
    why = "--shared-table says that other syncs write to it, too"
    syncs = backends.database.syncs()
    others = [other for other in syncs if other.established and other.name != settings.name]
    marked = set(destination.strangers(target))
    # One is this sync itself, from a home that was lost.
    unknown = sorted(marked - {sync.sync_id for sync in syncs})
    if len(unknown) > 1:
        raise ConfigurationError(
            f"sync {settings.name}: the table {destination.identity} can't be adopted: {len(unknown)} syncs that this "
            f"database does not know have written to it ({', '.join(unknown[:5])}), so whose its rows are can't be "
            "told, and the next run would delete those of others. Nothing was changed. If all are this one, whose home "
            "was lost more than once, begin with `rundiff sync --on-lost-baseline rebaseline`, or with `resend`"
        )
    theirs = [
        other.name
        for other in others
        # A mark tells of those, too, that name the same place in other words.
        if other.sync_id in marked or _place(other) == destination.identity.partition("?mode=")[0]
    ]
    if theirs:
        why = f"sync {', '.join(theirs[:5])} delivers to it, too"
    elif not settings.destination.shared_table:
        return
    raise ConfigurationError(
        f"sync {settings.name}: the table {destination.identity} can't be adopted: {why}, so whose its rows are can't "
        "be told, and the next run would delete those of others. Nothing was changed. Begin with `rundiff sync` "
        "instead: a first run writes over rows of the same keys, and leaves all others alone"
    )


def _place(sync: StoredSync) -> str:
    return StoredDestination.decode(sync.destination).place


def refuse_marked(settings: SyncSettings, where: tuple[Readable, Target], fields: Sequence[str]) -> None:
    """Raise `ConfigurationError` for a table with the columns of another mode, which the source does not have.

    Its rows are several versions of a record, or deleted ones, and would all be taken for the current ones.
    """
    destination, target = where
    wanted = Mode(settings.destination.mode)
    for mode, kept in MODE_FIELDS.items():
        names = [name for name in kept if name not in fields]
        if mode is wanted or not kept or len(names) < len(kept):
            continue
        first = next(iter(destination.stored(target, [*settings.primary_key, *names])), None)
        if first is not None and set(names) <= set(first.schema.names):
            raise ConfigurationError(
                f"sync {settings.name}: the table {destination.identity} has the columns of the mode {mode} "
                f"({', '.join(names)}), and is adopted in the mode {wanted}, in which each of its rows would count "
                f"as a record. Nothing was changed. Use --mode {mode}, or begin with `rundiff sync` if they mean "
                "something else"
            )
