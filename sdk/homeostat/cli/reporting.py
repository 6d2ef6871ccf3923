"""Errors as one line with the cure. What was not foreseen keeps its traceback: that is a bug."""

import errno
import sys
from collections.abc import Callable, Iterator

import grpc
from rich.console import Console

from homeostat.errors import HomeostatError

_FORESEEN = (HomeostatError, ValueError, LookupError, OSError, grpc.aio.AioRpcError)
_INTERRUPTED = 130
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def guarded(command: Callable[[], object]) -> None:
    """Runs it; exits with 1 and one line on a foreseen error, with 130 when interrupted."""
    try:
        command()
    except SystemExit as done:
        # typer leaves so, without a word, when it is interrupted.
        if done.code == _INTERRUPTED:
            _say_interrupted()
        raise
    except BaseException as error:
        leaves = list(_leaves(error))
        if any(isinstance(each, KeyboardInterrupt) for each in leaves):
            _say_interrupted()
            sys.exit(_INTERRUPTED)
        messages = [said for said in map(_message, leaves) if said is not None]
        if len(messages) < len(leaves):
            raise
        _say("error", messages[0])
        sys.exit(1)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _message(error: BaseException) -> str | None:
    if isinstance(error, grpc.aio.AioRpcError):
        cure = "; is it running? see `homeostat status`" if error.code() in _AWAY else ""
        return f"{error.code().name.lower().replace('_', ' ')}: {error.details()}{cure}"
    if isinstance(error, ModuleNotFoundError):
        return _of_module(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error}; cure: make room on that disk, or name another folder"
    if isinstance(error, _FORESEEN) or _is_arrows(error):
        return str(error) or type(error).__name__
    return None


def _of_module(error: ModuleNotFoundError) -> str | None:
    """A wheel that is not there; a module of our own that is not is a bug."""
    if error.name is None:
        return str(error)  # raised by hand, with the cure
    name = error.name.partition(".")[0]
    if name.startswith("homeostat"):
        return None
    return f"{name} is not installed; cure: pip install 'homeostat[all]'"


def _is_arrows(error: BaseException) -> bool:
    # Some of Arrow's are no ValueErrors; and it is not imported only to ask.
    arrow = sys.modules.get("pyarrow")
    return arrow is not None and isinstance(error, arrow.ArrowException)


def _say_interrupted() -> None:
    _say("interrupted", "")


def _say(word: str, message: str) -> None:
    console = Console(stderr=True)
    console.print(f"[red]{word}[/red]", end=" " if message else "\n")
    if message:
        # Without markup: messages hold square brackets, like those of extras.
        console.print(message, markup=False, highlight=False, soft_wrap=True)
