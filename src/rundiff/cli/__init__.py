"""The command `rundiff`: nothing heavy is imported before a command runs."""

from rundiff.cli.app import main

__all__ = ["main"]
