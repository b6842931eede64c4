"""Names in SQL: quoted, and read from what a person wrote."""

from __future__ import annotations

from rundiff.errors import ConfigurationError

__all__ = ["quote", "table_parts"]


def quote(name: str) -> str:
    """Quote an identifier of any spelling (SQL:2016 part 2, section 5.2: delimited identifier)."""
    return '"' + name.replace('"', '""') + '"'


def table_parts(named: str, flag: str) -> tuple[str, ...]:
    """Read `table`, `schema.table`, or either part in double quotes where it holds a dot: one or two parts.

    Raises `ConfigurationError`, which names the flag, for anything else.
    """
    parts = _split(named)
    if parts is None or len(parts) > 2 or not all(parts) or "\0" in named:
        raise ConfigurationError(
            f"{named!r} names no table: write {flag} TABLE or {flag} SCHEMA.TABLE, "
            'with a part that holds a dot in double quotes ("my.table").'
        )
    return tuple(parts)


def _split(named: str) -> list[str] | None:
    """Split at the dots outside of double quotes; None if the quotes don't pair."""
    parts, part, quoted, index = [], "", False, 0
    while index < len(named):
        char = named[index]
        if quoted and char == '"' and named[index + 1 : index + 2] == '"':
            part, index = part + '"', index + 1
        elif char == '"' and (quoted or not part):
            quoted = not quoted
        elif char == "." and not quoted:
            parts.append(part)
            part = ""
        else:
            part += char
        index += 1
    return None if quoted else [*parts, part]
