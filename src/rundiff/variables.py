"""Environment variables in texts: `${NAME}` stands for one, `$${` for a plain `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rundiff.errors import ConfigurationError

__all__ = ["expanded", "variables_of"]

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME_OF_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expanded(value: Any, environ: Mapping[str, str], label: str) -> Any:
    """Replace `${NAME}` in all texts within a value."""
    if isinstance(value, str):

        def replaced(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name = match[1]
            if not match[0].endswith("}") or not _NAME_OF_VARIABLE.fullmatch(name):
                raise ConfigurationError(
                    f"{label} has a ${{…}} that names no environment variable; write $${{ for a plain ${{."
                )
            if name not in environ:
                raise ConfigurationError(f"{label} needs the environment variable {name}, which is not set.")
            return environ[name]

        return _VARIABLE.sub(replaced, value)
    if isinstance(value, list):
        return [expanded(item, environ, label) for item in value]
    if isinstance(value, dict):
        return {key: expanded(item, environ, label) for key, item in value.items()}
    return value


def variables_of(value: Any) -> set[str]:
    """Name the environment variables that a value mentions."""
    if isinstance(value, str):
        return {match[1] for match in _VARIABLE.finditer(value) if match[1]}
    if isinstance(value, list):
        return {name for item in value for name in variables_of(item)}
    if isinstance(value, Mapping):
        return {name for item in value.values() for name in variables_of(item)}
    return set()
