"""Python functions that settings name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from rundiff.errors import ConfigurationError

__all__ = ["imported_function"]


def imported_function(reference: str, named_by: str) -> Callable[..., Any]:
    """Import the function that `module:function` names; `named_by` is the option, for people.

    Raises `ConfigurationError` where there is no such thing, or it can't be called.
    """
    module, _, name = reference.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"{named_by} names the function {reference}, which can't be imported ({error})."
        ) from error
    if not callable(found):
        raise ConfigurationError(f"{named_by} names {reference}, which is no function.")
    return found  # type: ignore[no-any-return]  # callable() can't say what it returns
