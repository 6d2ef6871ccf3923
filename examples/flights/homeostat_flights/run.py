"""One run of the demo from an empty folder to the summary."""

import asyncio
import shutil
import time
from calendar import month_name
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from homeostat_flights.demo import Wish, play_run
from homeostat_flights.figures import incident_line
from homeostat_flights.incident import WHAT as INCIDENT
from homeostat_flights.prologue import prepare_run

# Only a folder with this file in it is emptied.
_MARK = "made-by-homeostat-demo"
# The calendar is the player's: watermarks move when it says that a day is complete.
_SETTINGS = {"INFERENCE_WATERMARK_MODE": "explicit"}


def run_demo(wish: Wish, *, console: Console) -> dict[str, Any]:
    """Starts an own stack, plays, stops it; returns the figures."""
    from homeostat_local.launch import Launch, check_machine  # noqa: PLC0415 - as the next one
    from homeostat_local.stack import running_stack  # noqa: PLC0415 - slow to import

    began = time.monotonic()
    _empty(wish.folder)
    check_machine(wish.folder / "stack", Launch())
    with console.status("reading a year of flights, training on January"):
        prologue = prepare_run(wish.folder, wish.months, incident=wish.incident)
    console.print(
        f"January's model is trained; {len(prologue.played):,} flights of "
        f"{_span(wish.months)} wait to be played"
    )
    with ExitStack() as running:
        with console.status("starting broker, database and five services"):
            stack = running.enter_context(
                running_stack(wish.folder / "stack", settings=_SETTINGS, counts_caller=True)
            )
        return asyncio.run(play_run(wish, prologue, stack, began=began, console=console))


def _span(months: int) -> str:
    """Those after January."""
    last = month_name[1 + months]
    return last if months == 1 else f"{month_name[2]} to {last}"


def _empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise ValueError(f"{folder} is not a demo's folder; name an empty one with --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).write_text("Emptied at the next run of the demo.\n")


def show_summary(console: Console, found: dict[str, Any], report: Path) -> None:
    """The table at the end."""
    table = Table(title="The loop against the same first model, never retrained", box=None)
    for head in ("", "loop", "never", "difference"):
        table.add_column(head, justify="left" if not head else "right")
    gain = 100 * (found["accuracy_loop"] - found["accuracy_never"])
    table.add_row(
        "accuracy",
        f"{found['accuracy_loop']:.2%}",
        f"{found['accuracy_never']:.2%}",
        f"[bold]{gain:+.2f} points[/]",
    )
    table.add_row(
        "weekly AUC",
        f"{found['auc_loop']:.4f}",
        f"{found['auc_never']:.4f}",
        f"[bold]{found['auc_loop'] - found['auc_never']:+.4f}[/]",
    )
    console.print(table)
    if "incident" in found:
        console.print(f"[magenta]{INCIDENT}[/]\n  {escape(incident_line(found['incident']))}")
    is_exact = found["checksum_joined"] == found["checksum_sent"]
    console.print(
        f"{found['predictions']:,} predictions in {found['requests']:,} requests, "
        f"[bold]{found['failed_requests']} failed[/]; {found['outcomes_sent']:,} truths sent, "
        f"{found['outcomes_joined']:,} joined, checksums {'equal' if is_exact else 'DIFFER'}\n"
        f"{found['alerts']} alerts, {found['runs']} retraining runs, {found['fits']} fits, "
        f"[bold]{found['promotions']} promotions[/], no human step\n"
        f"{found['wall_seconds']:.0f} s, {found['peak_pss_mb']:,.0f} MB at most\n"
        f"the whole story with charts: [bold]{escape(str(report))}[/]",
        highlight=False,
    )
