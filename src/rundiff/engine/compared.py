"""Which fields of a record are compared, by what the settings include and exclude."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from rundiff.settings import DEFAULT_EXCLUDE, Comparison
from rundiff.signing.paths import roots

__all__ = ["compared_fields"]


def compared_fields(names: Sequence[str], comparison: Comparison, key: Sequence[str]) -> list[str]:
    """Choose the fields that the data signature takes, in order; of some of them, only parts may count.

    Globs match in any case. Key fields are always compared; `include` limits the rest and wins over
    the default excludes, an explicit `exclude` wins over `include`.
    """
    chosen = []
    explicit = comparison.exclude != DEFAULT_EXCLUDE
    included = {name for entry in comparison.include for name, _ in roots(entry, names, glob=True)}
    for name in names:
        if name in key:
            chosen.append(name)
            continue
        excluded = _matches(name, comparison.exclude)
        if comparison.include:
            if name in included and not (excluded and explicit):
                chosen.append(name)
        elif not excluded:
            chosen.append(name)
    return chosen


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name.casefold(), glob.casefold()) for glob in globs)
