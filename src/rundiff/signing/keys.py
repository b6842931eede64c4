"""Where the secret for keyed signatures comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from rundiff.errors import ConfigurationError
from rundiff.signing.contract import SigningKey

__all__ = [
    "FORMER_FILE_VARIABLE",
    "FORMER_VARIABLE",
    "KEY_FILE_VARIABLE",
    "KEY_VARIABLE",
    "SHORTEST_KEY",
    "load_former_key",
    "load_signing_key",
]

KEY_VARIABLE = "RUNDIFF_SIGNING_KEY"
KEY_FILE_VARIABLE = "RUNDIFF_SIGNING_KEY_FILE"
FORMER_VARIABLE = "RUNDIFF_SIGNING_KEY_FORMER"
FORMER_FILE_VARIABLE = "RUNDIFF_SIGNING_KEY_FORMER_FILE"
SHORTEST_KEY = 16
"""In bytes; RFC 2104 advises keys no shorter than the digest, 32."""


def load_signing_key(environ: Mapping[str, str]) -> SigningKey | None:
    """Load the signing key that the environment gives, or None if it gives none.

    `RUNDIFF_SIGNING_KEY` holds the secret itself; `RUNDIFF_SIGNING_KEY_FILE` names a file that holds
    it, whose last line break does not count. Raises `ConfigurationError` if both are set, the file
    can't be read, or the key is shorter than 16 bytes; the secret is in no message.
    """
    secret = _load(environ, KEY_VARIABLE, KEY_FILE_VARIABLE)
    return None if secret is None else _checked(*secret)


def load_former_key(environ: Mapping[str, str]) -> bytes | None:
    """Load the secret that a sync was signed under before its key was rotated; None if none is named.

    `RUNDIFF_SIGNING_KEY_FORMER` holds it, or `RUNDIFF_SIGNING_KEY_FORMER_FILE` names its file, as with
    `load_signing_key`. Empty, it says that there was no signing key before.
    """
    secret = _load(environ, FORMER_VARIABLE, FORMER_FILE_VARIABLE)
    if secret is None or not secret[0]:
        return None if secret is None else b""
    return _checked(*secret).secret


def _load(environ: Mapping[str, str], variable: str, file_variable: str) -> tuple[bytes, str] | None:
    """Give the secret and the words for where it came from."""
    secret, path = environ.get(variable), environ.get(file_variable)
    if secret is not None and path is not None:
        raise ConfigurationError(f"{variable} and {file_variable} are both set; set only one of them")
    if secret is not None:
        return os.fsencode(secret), variable
    return None if path is None else (_read(path, file_variable), f"the file of {file_variable}")


def _read(path: str, variable: str) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"the file that {variable} names, {path!r}, can't be read ({reason}); mend the path or its rights"
        ) from error
    return content.removesuffix(b"\n").removesuffix(b"\r")


def _checked(secret: bytes, origin: str) -> SigningKey:
    if len(secret) < SHORTEST_KEY:
        state = "is empty" if not secret else f"has only {len(secret)} bytes"
        raise ConfigurationError(
            f"the signing key in {origin} {state}; give at least {SHORTEST_KEY}, better 32 random ones"
        )
    return SigningKey(secret)
