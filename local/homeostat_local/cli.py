"""The commands `up`, `down` and `status`; light to import, also without the extra."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console

from homeostat_local.errors import LocalError

P = ParamSpec("P")

Folder = Annotated[Path, typer.Option("--folder", help="Where the stack keeps its data.")]
_DEFAULT_FOLDER = Path(".homeostat")

_console = Console()
_errors = Console(stderr=True)


def add_to(app: typer.Typer) -> None:
    """Mounts the commands on the command line's root."""
    app.command()(_reported(up))
    app.command()(_reported(down))
    app.command()(_reported(status))


def up(
    folder: Folder = _DEFAULT_FOLDER,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A service's setting without HOMEOSTAT_, like INFERENCE_WATERMARK_MODE=explicit; "
            "for all: OTLP_ENDPOINT, LOG_LEVEL, TOKENS_FILE, TLS_CERTIFICATE_FILE, ...",
        ),
    ] = None,
    ports: Annotated[
        list[str] | None,
        typer.Option("--port", metavar="SERVICE=PORT", help="A fixed port, like inference=8001."),
    ] = None,
    services: Annotated[
        str, typer.Option(help="Only these services, separated by commas.")
    ] = "registry,inference,ledger,monitor,retrainer",
    kafka: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Your Kafka, not the embedded broker.")
    ] = None,
    broker_memory_mib: Annotated[
        int, typer.Option(help="The embedded broker starts anew when it holds more.")
    ] = 1024,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until Ctrl-C, and stop everything then.")
    ] = False,
) -> None:
    """Start broker, PostgreSQL and every service on this machine, and wait until they answer."""
    _need_extra()
    from homeostat_local import control, view  # noqa: PLC0415 - needs the extra
    from homeostat_local.launch import Launch, parse_ports, parse_settings  # noqa: PLC0415

    folder = folder.resolve()
    if control.running(folder) is not None:
        endpoints = view.await_ready(_console, folder, None)
        _console.print(
            f"Already running in {folder}; nothing changed.", highlight=False, markup=False
        )
        _console.print(view.endpoints_table(endpoints))
        return
    launch = Launch(
        services=tuple(name.strip() for name in services.split(",") if name.strip()),
        settings=parse_settings(settings or ()),
        kafka=kafka,
        broker_memory_mib=broker_memory_mib,
        ports=parse_ports(ports or ()),
    )
    supervisor = control.start(folder, launch, detached=not foreground)
    try:
        _console.print(view.endpoints_table(view.await_ready(_console, folder, supervisor)))
        if foreground:
            _console.print("Running; Ctrl-C stops everything.")
            supervisor.wait()
    except KeyboardInterrupt:
        view.stop(_console, folder)
    except BaseException:
        # What came up of it would run on without anybody's knowledge.
        control.stop(folder)
        raise


def down(folder: Folder = _DEFAULT_FOLDER) -> None:
    """Stop what `up` started, in order; works, too, if half of it is dead already."""
    _need_extra()
    from homeostat_local import view  # noqa: PLC0415 - needs the extra

    view.stop(_console, folder.resolve())


def status(
    folder: Folder = _DEFAULT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every process. The exit code is 0 only if all is well."""
    _need_extra()
    from homeostat_local import view  # noqa: PLC0415 - needs the extra

    if not view.show_status(_console, folder.resolve(), as_json=as_json):
        raise typer.Exit(1)


def _need_extra() -> None:
    import importlib.util  # noqa: PLC0415

    if importlib.util.find_spec("psutil") is None:
        raise LocalError("not installed: local; cure: pip install 'homeostat[all]'")


def _reported(command: Callable[P, None]) -> Callable[P, None]:
    """An error that a user can act on becomes one line and exit code 1."""

    @functools.wraps(command)
    def reported(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except LocalError as error:
            _errors.print("[red]error[/red]", end=" ")
            _errors.print(str(error), highlight=False, markup=False, soft_wrap=True)
            sys.exit(1)

    return reported
