"""Paths into nested data: `meta.fetched_at`, `items[].seen`.

A point goes to a member of a struct or map, `[]` to the items of a list. Names that hold points themselves are
found, too: the longest name that exists wins, and the exact name of a field wins over every path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import msgspec

__all__ = ["ITEMS", "Parts", "Selection", "inner_paths", "is_path", "roots", "split_path"]

Parts = tuple[str, ...]
"""A path or what is left of it: names, and `[]` for the items of a list."""
ITEMS = "[]"


def is_path(text: str) -> bool:
    """Say whether a text may lead into nested data; it may still be the name of a field."""
    return "." in text or ITEMS in text


def split_path(text: str) -> Parts:
    """Split a path.

    >>> split_path("items[].seen.at")
    ('items', '[]', 'seen', 'at')
    """
    parts: list[str] = []
    for part in text.split("."):
        name = part
        while name.endswith(ITEMS):
            name = name.removesuffix(ITEMS)
        if name or not part:
            parts.append(name)
        parts += [ITEMS] * ((len(part) - len(name)) // len(ITEMS))
    return tuple(parts)


def _prefixes(parts: Parts) -> Iterator[tuple[str, Parts]]:
    """Give the names that a path may begin with, the longest first, each with the rest of the path."""
    end = parts.index(ITEMS) if ITEMS in parts else len(parts)
    for count in range(end, 0, -1):
        yield ".".join(parts[:count]), parts[count:]


def roots(path: str, names: Sequence[str], *, glob: bool) -> list[tuple[str, Parts]]:
    """Find the fields that a path leads into, each with the rest of the path; empty where it is the field's own.

    With `glob`, names match as globs in any case; else as they are.
    """
    for name, rest in [(path, ()), *_prefixes(split_path(path))]:
        found = [known for known in names if known == name or (glob and _matches(known, name))]
        if found:
            return [(known, rest) for known in found]
    return []


def inner_paths(parts: Parts, names: Iterable[str]) -> list[tuple[str, Parts]]:
    """Find the member that a path leads to, by its exact name, with the rest of the path."""
    known = set(names)
    return next(([(name, rest)] for name, rest in _prefixes(parts) if name in known), [])


def _matches(name: str, glob: str) -> bool:
    return fnmatchcase(name.casefold(), glob.casefold())


class Selection(msgspec.Struct, frozen=True):
    """Which parts of a nested value are taken."""

    exclude: tuple[Parts, ...] = ()
    include: tuple[Parts, ...] | None = None
    """Paths to what alone is taken; None: everything that is not excluded."""

    @property
    def is_whole(self) -> bool:
        """Whether everything is taken."""
        return not self.exclude and self.include is None

    def member(self, name: str) -> Selection | None:
        """Say what is taken of a member; None: nothing. Names match as globs in any case."""
        exclude = _after(self.exclude, name)
        if () in exclude:
            return None
        if self.include is None:
            return Selection(exclude)
        include = _after(self.include, name)
        if not include:
            return None
        return Selection(exclude, None if () in include else include)

    @property
    def items(self) -> Selection:
        """Say what is taken of the items of a list."""
        exclude = tuple(parts[1:] for parts in self.exclude if parts[0] == ITEMS)
        if self.include is None:
            return Selection(exclude)
        include = tuple(parts[1:] for parts in self.include if parts[0] == ITEMS)
        return Selection(exclude, None if () in include else include)


def _after(paths: tuple[Parts, ...], name: str) -> tuple[Parts, ...]:
    return tuple(rest for parts in paths for prefix, rest in _prefixes(parts) if _matches(name, prefix))
