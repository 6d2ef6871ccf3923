"""What a person watches while the year is played: progress, scores, who serves, what happened."""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

_EVENTS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Glance:
    """The state of the run at a midnight."""

    at_us: int
    day: int
    days: int
    predictions: int
    failed_requests: int
    outcomes_sent: int
    version: int
    alerts_open: int
    promotions: int
    runs: int
    accuracy_loop: float
    accuracy_never: float
    predictions_per_second: float
    waited_seconds: float


@dataclass(slots=True)
class Screen:
    """A live view on a terminal; plain lines, one per event and week, elsewhere."""

    console: Console
    _events: deque[str] = field(default_factory=lambda: deque(maxlen=_EVENTS_SHOWN))
    _live: Live | None = None
    _progress: Progress = field(
        default_factory=lambda: Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("days"),
            TimeElapsedColumn(),
        )
    )

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self._progress.add_task("calendar", total=None)
            self._live = Live(console=self.console, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def happened(self, at_us: int, what: str) -> None:
        """Notes an event of the simulated calendar."""
        line = f"[dim]{_date(at_us)}[/dim] {what}"
        self._events.append(line)
        if self._live is None:
            self.console.print(line, highlight=False)

    def show(self, glance: Glance) -> None:
        """Shows the state after a day."""
        if self._live is None:
            if glance.day % 7 == 0 or glance.day == glance.days:
                self.console.print(_line(glance), highlight=False)
            return
        self._progress.update(
            self._progress.task_ids[0],
            description=_date(glance.at_us),
            total=glance.days,
            completed=glance.day,
        )
        self._live.update(self._picture(glance))

    def _picture(self, glance: Glance) -> RenderableType:
        table = Table.grid(padding=(0, 3))
        gain = 100 * (glance.accuracy_loop - glance.accuracy_never)
        for left, right in (
            ("serving", f"[bold cyan]version {glance.version}[/]   {glance.promotions} promotions"),
            (
                "accuracy",
                f"[bold green]{glance.accuracy_loop:.2%}[/]  never retrained "
                f"{glance.accuracy_never:.2%}  ([bold]{gain:+.2f}[/] points)",
            ),
            (
                "predictions",
                f"{glance.predictions:,}   {glance.predictions_per_second:,.0f}/s   "
                f"failed requests [bold]{glance.failed_requests}[/]",
            ),
            ("truth", f"{glance.outcomes_sent:,} told"),
            ("alerts", f"{glance.alerts_open} open   {glance.runs} retraining runs"),
            ("lag", f"0 after {glance.waited_seconds:.2f} s of waiting at midnight"),
        ):
            table.add_row(f"[dim]{left}[/dim]", right)
        events = "\n".join(self._events) or "[dim]nothing yet[/dim]"
        return Group(
            self._progress,
            Panel(table, title="the loop", title_align="left", border_style="cyan"),
            Panel(events, title="what happened", title_align="left", border_style="dim"),
        )


def _line(glance: Glance) -> str:
    return (
        f"{_date(glance.at_us)} day {glance.day}/{glance.days}: {glance.predictions:,} "
        f"predictions, {glance.failed_requests} failed, version {glance.version}, accuracy "
        f"{glance.accuracy_loop:.2%} against {glance.accuracy_never:.2%}"
    )


def _date(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d")
