"""Run the command: `python -m rundiff`."""

from rundiff.cli import main

main()
