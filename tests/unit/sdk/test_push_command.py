"""What `homeostat push` says of whoever runs it."""

import getpass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from homeostat.cli import pushing
from homeostat.push import Push


class _Prepared(Exception):
    """Far enough: what was said is known."""


def test_a_push_names_its_author_so_that_four_eyes_can_tell_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[Push] = []

    def prepare(push: Push) -> Any:
        told.append(push)
        raise _Prepared

    monkeypatch.setattr(pushing, "prepare", prepare)
    app = typer.Typer()
    pushing.add_to(app)
    model, history = tmp_path / "late.onnx", tmp_path / "january.parquet"
    model.touch()
    history.touch()
    arguments = [str(model), "--history", str(history), "--truth", "late", "--time", "departs"]
    CliRunner().invoke(app, arguments)
    assert [push.author for push in told] == [getpass.getuser()]
