"""What the help shows as an example is a command that there is."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from homeostat.cli.main import app

AREAS = ("alerts", "policy", "monitor")
ROOT: Any = typer.main.get_command(app)


def commands(command: Any) -> Iterator[Any]:
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from commands(each)


def examples() -> list[str]:
    helps = [each.help or "" for area in AREAS for each in commands(ROOT.commands[area])]
    found = [each for text in helps for each in re.findall(r"^Example: (.*)$", text, re.MULTILINE)]
    return sorted(set(found))


def test_every_area_teaches_by_examples() -> None:
    taught = {each.split()[1] for each in examples()}
    assert taught == {*AREAS}


@pytest.mark.parametrize("example", examples())
def test_an_example_is_a_command(example: str) -> None:
    command, words = ROOT, shlex.split(example.partition(" > ")[0])[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    # Parses, and raises where an option or an argument is none; runs nothing.
    assert command.make_context(command.name, words).params
