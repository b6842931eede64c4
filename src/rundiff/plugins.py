"""What other packages register as entry points (Python packaging, "Entry points specification")."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

__all__ = ["entry_points"]


def entry_points(*, group: str, name: str | None = None) -> EntryPoints:
    """List the entry points of a group, or those of one name.

    Looks into every installed package: ask only for what is not Rundiff's own. Importing what can
    look there takes a tenth of the start of the command, so it is left to this moment, too.
    """
    from importlib import metadata

    return (
        metadata.entry_points(group=group) if name is None else metadata.entry_points(group=group, name=name)
    )
