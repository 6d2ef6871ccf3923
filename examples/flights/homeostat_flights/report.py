"""The report of a run: one HTML file with everything inside, to be opened in any browser."""

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from homeostat.events.v1.alert_pb2 import (
    SEVERITY_CRITICAL,
    AlertRule,
    AlertState,
    CauseClass,
)
from homeostat.events.v1.retraining_run_pb2 import RetrainingRun, RunOutcome, RunTrigger
from homeostat.registry.v1.registry_pb2 import Stage, Version
from homeostat_flights import incident
from homeostat_flights.figures import Story, incident_line
from homeostat_flights.score import Scores, Week

_LOOP, _NEVER, _WARNING, _CRITICAL = "#0b7285", "#adb5bd", "#f08c00", "#c92a2a"
_INCIDENT = "#ae3ec9"

_CONFIG = {"displaylogo": False, "displayModeBar": False}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Homeostat: a year of flights</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #212529; max-width: 1180px;
  margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin-bottom: 0; }} h2 {{ font-size: 1.15rem; margin-top: 2.2rem; }}
.lead {{ color: #495057; margin-top: .3rem; }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: .8rem; }}
.card {{ border: 1px solid #dee2e6; border-radius: 8px; padding: .7rem .9rem; }}
.card b {{ display: block; font-size: 1.45rem; }} .card span {{ color: #495057; }}
table {{ border-collapse: collapse; width: 100%; font-size: 13px; }}
th, td {{ text-align: left; padding: .28rem .5rem; border-bottom: 1px solid #e9ecef;
  vertical-align: top; }}
th {{ background: #f8f9fa; position: sticky; top: 0; }} td.n {{ text-align: right; }}
.scroll {{ max-height: 430px; overflow: auto; border: 1px solid #e9ecef; }}
</style></head><body>
<h1>A year of flights, and a model that stayed true</h1>
<p class="lead">{lead}</p>
<div class="cards">{cards}</div>
<h2>Quality per week: the loop against the same first model, never retrained</h2>
<p class="lead">Scored on the very same flights. Dotted lines are promotions, dots are alerts.</p>
{charts}
{incident}<h2>Versions and their lineage</h2><div class="scroll">{versions}</div>
<h2>Alerts</h2><div class="scroll">{alerts}</div>
<h2>Retraining runs</h2><div class="scroll">{runs}</div>
<p class="lead">All times are simulated, UTC. The calendar waited at each midnight until every
retraining had ended; a machine that is faster or slower gives the same story.</p>
</body></html>
"""


def write_report(path: Path, scores: Scores, story: Story, figures: Mapping[str, Any]) -> None:
    """Writes the page; it loads nothing from anywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = datetime.fromtimestamp(scores.weeks[0].from_us / 1e6, UTC).date()
    path.write_text(
        _PAGE.format(
            lead=f"{figures['predictions']:,} flights from {first}, each predicted at its "
            "scheduled departure, its truth told when it was known. No human step.",
            cards=_cards(figures),
            charts=_charts(scores, story, figures),
            incident=_incident(figures),
            versions=_versions(story.versions),
            alerts=_alerts(story),
            runs=_runs(story.runs),
        ),
        encoding="utf-8",
    )


def _cards(figures: Mapping[str, Any]) -> str:
    gain = 100 * (figures["accuracy_loop"] - figures["accuracy_never"])
    rise = figures["auc_loop"] - figures["auc_never"]
    facts = (
        (
            f"{gain:+.2f} points",
            f"accuracy {figures['accuracy_loop']:.2%} instead of {figures['accuracy_never']:.2%}",
        ),
        (
            f"{rise:+.4f}",
            f"weekly AUC {figures['auc_loop']:.4f} instead of {figures['auc_never']:.4f}",
        ),
        (f"{figures['failed_requests']}", f"failed of {figures['requests']:,} requests"),
        (f"{figures['outcomes_joined']:,}", f"truths joined of {figures['outcomes_sent']:,} sent"),
        (
            f"{figures['promotions']}",
            f"promotions of {figures['runs']} runs, {figures['alerts']} alerts",
        ),
        (f"{figures['wall_seconds']:.0f} s", f"in all, {figures['peak_pss_mb']:,.0f} MB at most"),
    )
    return "".join(
        f'<div class="card"><b>{html.escape(head)}</b><span>{html.escape(tail)}</span></div>'
        for head, tail in facts
    )


def _charts(scores: Scores, story: Story, figures: Mapping[str, Any]) -> str:
    accuracy = _chart(scores.weeks, story, figures, "accuracy", "Accuracy")
    auc = _chart(scores.weeks, story, figures, "auc", "AUC")
    return str(
        accuracy.to_html(full_html=False, include_plotlyjs=True, config=_CONFIG)
        + auc.to_html(full_html=False, include_plotlyjs=False, config=_CONFIG)
    )


def _chart(
    weeks: Sequence[Week], story: Story, figures: Mapping[str, Any], measure: str, title: str
) -> go.Figure:
    times = [_time(week.from_us) for week in weeks]
    figure = go.Figure()
    for arm, name, colour in (("never", "never retrained", _NEVER), ("loop", "the loop", _LOOP)):
        values = [getattr(week, f"{measure}_{arm}") for week in weeks]
        figure.add_scatter(x=times, y=values, name=name, mode="lines+markers", line_color=colour)
    for version in story.promoted:
        figure.add_vline(
            x=_promoted_at(version, story).isoformat(),
            line_dash="dot",
            line_width=1.5,
            line_color=_LOOP,
            opacity=0.7,
        )
    low = min(min(getattr(w, f"{measure}_loop"), getattr(w, f"{measure}_never")) for w in weeks)
    _add_alerts(figure, story, low - 0.01)
    if "incident" in figures:
        _add_incident(figure)
    figure.update_layout(
        title=title,
        height=340,
        template="simple_white",
        margin={"t": 45, "b": 30, "l": 55, "r": 15},
    )
    return figure


def _add_alerts(figure: go.Figure, story: Story, level: float) -> None:
    alerts = story.alerts
    figure.add_scatter(
        x=[_time(alert.since_at.ToMicroseconds()) for alert in alerts],
        y=[level] * len(alerts),
        text=[story.what(alert) for alert in alerts],
        name="alerts",
        mode="markers",
        marker_color=[
            _CRITICAL if alert.severity == SEVERITY_CRITICAL else _WARNING for alert in alerts
        ],
    )


def _add_incident(figure: go.Figure) -> None:
    figure.add_vrect(
        x0=_time(incident.FROM_US).isoformat(),
        x1=_time(incident.BEFORE_US).isoformat(),
        fillcolor=_INCIDENT,
        opacity=0.18,
        line_width=0,
        annotation_text="injected incident",
        annotation_position="top left",
        annotation_font_size=11,
    )


def _promoted_at(version: Version, story: Story) -> datetime:
    ended = {run.run_id: run.occurred_at.ToMicroseconds() for run in story.runs}
    return _time(ended.get(version.lineage.run_id, version.registered_at.ToMicroseconds()))


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)


def _incident(figures: Mapping[str, Any]) -> str:
    """What was injected, and what the loop made of it."""
    found = figures.get("incident")
    if found is None:
        return ""
    return (
        "<h2>The injected incident</h2>"
        f'<p class="lead">{html.escape(incident.WHAT)}, from {found["from"]} on. '
        f"<b>{html.escape(incident_line(found))}</b></p>\n"
    )


def _versions(versions: Iterable[Version]) -> str:
    rows = (
        (
            each.version,
            _word(Stage.Name(each.stage), "STAGE_"),
            each.lineage.parent_version or "",
            each.lineage.cause,
            f"{each.lineage.training_rows:,}",
            f"{each.evidence.mean_gain:.4f}" if each.HasField("evidence") else "",
            each.model_sha256[:12],
        )
        for each in versions
    )
    heads = ("version", "stage", "parent", "cause", "trained on rows", "gain (nats)", "sha256")
    return _table(heads, rows)


def _alerts(story: Story) -> str:
    rows = (
        (
            _time(each.since_at.ToMicroseconds()).strftime("%Y-%m-%d"),
            each.version,
            _word(AlertRule.Name(each.rule), "ALERT_RULE_"),
            each.feature,
            story.what(each),
            _word(CauseClass.Name(each.cause), "CAUSE_CLASS_"),
            "; ".join(step.text for step in each.diagnosis.steps) or "; ".join(each.remedies),
            _word(AlertState.Name(each.state), "ALERT_STATE_"),
            each.summary.removeprefix("Resolved: ") if each.resolution else "",
        )
        for each in story.alerts
    )
    heads = (
        "since",
        "version",
        "rule",
        "feature",
        "what",
        "cause",
        "what would help",
        "state",
        "how it ended",
    )
    return _table(heads, rows)


def _runs(runs: Iterable[RetrainingRun]) -> str:
    rows = (
        (
            _time(each.occurred_at.ToMicroseconds()).strftime("%Y-%m-%d"),
            _word(RunTrigger.Name(each.trigger), "RUN_TRIGGER_"),
            f"{each.champion_version}",
            f"{each.candidate_version}" if each.HasField("candidate_version") else "",
            ", ".join(f"{try_.window} {try_.mean_gain:+.4f}" for try_ in each.candidates),
            _word(RunOutcome.Name(each.outcome), "RUN_OUTCOME_"),
            " ".join(each.reasons),
        )
        for each in runs
    )
    heads = ("at", "trigger", "champion", "candidate", "gains tried (nats)", "outcome", "reasons")
    return _table(heads, rows)


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("_", " ")


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(each)}</th>" for each in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
