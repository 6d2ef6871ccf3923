"""What the command line says where something goes wrong: one line with the cure."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pyarrow as pa
import pytest

from homeostat.cli import shared
from homeostat.cli.models import moment_of
from homeostat.cli.reporting import guarded
from homeostat.errors import HomeostatError
from homeostat.model_file import BadModelFile
from homeostat.tokens import Role, digest_of, read_tokens


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def said_of(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        guarded(raising(error))
    assert left.value.code == 1
    return capsys.readouterr().err


def unavailable() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, details="away")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BadModelFile("cure: pip install 'homeostat[push]'"), "'homeostat[push]'"),
        (ValueError("[/tmp] is no folder"), "[/tmp] is no folder"),
        (HomeostatError("port 1 is taken; cure: another"), "port 1 is taken; cure: another"),
        (pa.ArrowNotImplementedError("no cast from list"), "no cast from list"),
        (pa.ArrowTypeError("not a string"), "not a string"),
        (OSError(28, "No space left on device"), "make room"),
        (ModuleNotFoundError("no plotly", name="plotly"), "'homeostat[all]'"),
        (ModuleNotFoundError("pip install 'homeostat[flights]'"), "'homeostat[flights]'"),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [ValueError("no row")])]), "no row"),
        (unavailable(), "homeostat status"),
    ],
)
def test_a_foreseen_error_is_one_line_with_its_cure(
    error: BaseException, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_of(error, capsys)
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a bug"), ExceptionGroup("", [ValueError("x"), RuntimeError("a bug")])],
)
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        guarded(raising(error))


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("tasks", [KeyboardInterrupt()])]
)
def test_an_interrupted_command_says_so_and_leaves_with_130(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        guarded(raising(error))
    assert left.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_task_groups_error_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        async def failing() -> None:
            raise ConnectionRefusedError("nobody answers")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(failing())

    with pytest.raises(SystemExit):
        guarded(lambda: asyncio.run(work()))
    assert capsys.readouterr().err == "error nobody answers\n"


def test_square_brackets_of_a_server_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "console", shared.Console())
    shared.show_table("alerts of [red]", ["what"], [["cure: [push] or [/tmp]"]])
    said = capsys.readouterr().out
    assert "alerts of [red]" in said
    assert "cure: [push] or [/tmp]" in said


def test_a_file_that_is_no_model_is_one_line_at_the_prompt(tmp_path: Path) -> None:
    for name in ("model.onnx", "history.parquet"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    words = ["push", "model.onnx", "--history", "history.parquet", "--truth", "y", "--time", "t"]
    done = subprocess.run(
        [Path(sys.executable).with_name("homeostat"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error ")
    assert "Traceback" not in done.stderr


def test_a_time_keeps_its_zone_and_is_utc_without_one() -> None:
    noon = datetime(2013, 2, 1, 12, tzinfo=UTC)
    assert moment_of("2013-02-01T13:00+01:00") == noon
    assert moment_of("2013-02-01T12:00") == noon
    with pytest.raises(ValueError, match="write it like"):
        moment_of("noon")


def test_a_token_is_printed_alone_and_kept_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("homeostat"), "token", "new", "ci"),
            *("--role", "predict", "--role", "read", "--file", str(file)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    token = done.stdout.strip()
    assert len(token) > 40 and "\n" not in token
    (entry,) = read_tokens(file)
    assert (entry.name, entry.digest) == ("ci", digest_of(token))
    assert entry.may(Role.PREDICT) and entry.may(Role.READ) and not entry.may(Role.MANAGE)
