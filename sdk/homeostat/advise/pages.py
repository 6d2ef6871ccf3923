"""The figures as one page with a chart, for whom a terminal is not enough."""

import html
from collections.abc import Sequence

from homeostat.advise.report import Report
from homeostat.advise.subject import CannotAdvise

_STYLE = "body{font:16px system-ui;max-width:60rem;margin:2rem auto}"


def page(report: Report, advice: Sequence[str]) -> str:
    """A whole HTML page that loads nothing; CannotAdvise where plotly is not installed."""
    try:
        from plotly import graph_objects as go  # noqa: PLC0415 - of another extra
    except ImportError:
        raise CannotAdvise("the chart needs plotly: pip install 'homeostat[flights]'") from None
    figure = go.Figure(
        [
            go.Scatter(
                x=[timing.rows for timing in each.timings],
                y=[timing.cpu_seconds_per_million for timing in each.timings],
                name=each.variant.name,
                mode="lines+markers",
            )
            for each in report.outcomes
            if each.timings
        ]
    )
    figure.update_layout(
        xaxis={"title": "rows at once", "type": "log"},
        yaxis={"title": "CPU-seconds per million predictions", "type": "log"},
    )
    chart = figure.to_html(full_html=False, include_plotlyjs=True)
    title = html.escape(f"{report.model_name} version {report.version}")
    told = "".join(f"<p>{html.escape(each)}</p>" for each in advice)
    machine = html.escape(f"Measured on {report.machine.short}, {report.row_count:,} rows.")
    return (
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1>{told}<p>{machine}</p>{chart}"
    )
