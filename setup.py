"""Builds the optional native core, `rundiff._native`, beside what pyproject.toml describes.

Where it can't be built (no cargo, no crates registry, `RUNDIFF_BUILD_NATIVE=0`) installation goes on
without it: the same signatures then come from Python, more slowly.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from setuptools import setup


def _notice(reason: str) -> None:
    sys.stderr.write(
        f"rundiff: installing without the native core, because {reason}. "
        "Everything works, more slowly; `rundiff doctor` tells which core is in use.\n"
    )


def _native_core() -> dict[str, Any]:
    """Give the arguments of `setup` that build the native core, or none, with a notice."""
    if os.environ.get("RUNDIFF_BUILD_NATIVE") == "0":
        _notice("RUNDIFF_BUILD_NATIVE is 0")
        return {}
    if shutil.which(os.environ.get("CARGO", "cargo")) is None:
        _notice("there is no cargo on the PATH")
        return {}
    try:
        from setuptools_rust import Binding, RustExtension, build_rust
    except ImportError:
        _notice("setuptools-rust is not installed")
        return {}

    class BuildNative(build_rust):  # type: ignore[misc]  # setuptools-rust is untyped
        """Builds the extension, and says so plainly when it can't."""

        def run_for_extension(self, ext: Any) -> None:
            try:
                super().run_for_extension(ext)
            except Exception as error:
                _notice(f"cargo could not build it ({str(error).strip().splitlines()[0]})")
                raise  # setuptools-rust goes on without an optional extension

    # Without a registry, cargo would try again and again before it gives up.
    os.environ.setdefault("CARGO_NET_RETRY", "1")
    os.environ.setdefault("CARGO_HTTP_TIMEOUT", "10")
    extension = RustExtension(
        "rundiff._native",
        path="native/Cargo.toml",
        binding=Binding.PyO3,
        py_limited_api=True,
        args=["--locked"],
        debug=False,
        optional=True,
    )
    return {
        "rust_extensions": [extension],
        "cmdclass": {"build_rust": BuildNative},
        "options": {"bdist_wheel": {"py_limited_api": "cp311"}},
        "zip_safe": False,
    }


setup(**_native_core())
