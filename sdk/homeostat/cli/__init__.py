"""The command line: `homeostat --help` teaches it."""

from homeostat.cli.main import main

__all__ = ["main"]
