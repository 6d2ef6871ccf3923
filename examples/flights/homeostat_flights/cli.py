"""`homeostat demo flights`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

_FOLDER = Path(".homeostat") / "demo-flights"

demo_app = typer.Typer(help="Watch the loop close on real data.", no_args_is_help=True)


@demo_app.callback()
def demo() -> None:
    """Watch the loop close on real data."""


@demo_app.command()
def flights(
    months: Annotated[
        int, typer.Option(min=1, max=11, help="How many months after January to play.")
    ] = 3,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file.")
    ] = None,
    report: Annotated[Path, typer.Option(help="Write the HTML report here.")] = Path(
        "flights-report.html"
    ),
    incident: Annotated[
        bool,
        typer.Option(
            help="Let the temperature come in another unit for three days of February, and see "
            "what the loop makes of it."
        ),
    ] = True,
    folder: Annotated[
        Path, typer.Option(help="The demo's own data; emptied before a run.")
    ] = _FOLDER,
) -> None:
    """Plays real flights of 2013 through the whole loop, month by month.

    January trains the first model. Then each flight is predicted at its scheduled departure, its
    fate told when it was known; the loop sees drift, retrains, proves and swaps by itself. The
    calendar waits at midnight for retrainings to end, so that a run can be repeated.
    """
    # pandas, plotly and friends take a second: not for `homeostat --help`
    from homeostat_flights.demo import Wish  # noqa: PLC0415
    from homeostat_flights.run import run_demo, show_summary  # noqa: PLC0415

    console = Console()
    found = run_demo(Wish(months, folder, json_path, report, incident), console=console)
    show_summary(console, found, report)
    if found["failed_requests"] or found["checksum_joined"] != found["checksum_sent"]:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.add_typer(demo_app, name="demo")
