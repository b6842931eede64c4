"""Which fields of a record are compared, by what the settings include and exclude."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from rundiff.settings import DEFAULT_EXCLUDE, Comparison
from rundiff.signing.paths import roots

__all__ = ["compared_fields"]


def compared_fields(names: Sequence[str], comparison: Comparison, key: Sequence[str]) -> list[str]:
    """Choose the fields that the data signature takes, in order; of some of them, only parts may count.

    Globs match in any case. Key fields are always compared; `include` limits the rest and wins over
    the default excludes, an explicit `exclude` wins over `include`.
    """
    return list(_chosen(tuple(names), tuple(comparison.exclude), tuple(comparison.include), tuple(key)))


@lru_cache(maxsize=64)  # asked for each batch, nearly always with the same names
def _chosen(
    names: tuple[str, ...], exclude: tuple[str, ...], include: tuple[str, ...], key: tuple[str, ...]
) -> tuple[str, ...]:
    chosen = []
    explicit = exclude != DEFAULT_EXCLUDE
    included = {name for entry in include for name, _ in roots(entry, names, glob=True)}
    for name in names:
        if name in key:
            chosen.append(name)
            continue
        excluded = _matches(name, exclude)
        if include:
            if name in included and not (excluded and explicit):
                chosen.append(name)
        elif not excluded:
            chosen.append(name)
    return tuple(chosen)


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name.casefold(), glob.casefold()) for glob in globs)
