"""The advice in words: what to change, what it brings, and the command that does it."""

from collections.abc import Callable, Iterator

from homeostat.advise.figures import Outcome, Timing
from homeostat.advise.forms import Form
from homeostat.advise.report import WORTH, Report, is_faster


def advice(report: Report) -> list[str]:
    """One sentence or two per finding, the best first; never anything that was not measured."""
    found = [
        *_form(report),
        *_batching(report),
        *_compiled(report),
        *_threads(report),
        *_levels(report),
    ]
    if not found:
        found = [
            f"Nothing measured here is faster by more than {WORTH - 1:.0%}: leave it as it is."
        ]
    if report.was_busy:
        found.append(
            "Other work used the cores meanwhile: speed-ups are of CPU time where one thread runs, "
            "but rows per second are lower than this machine can."
        )
    return found


def best_form(report: Report) -> Outcome | None:
    """The fastest file that may be applied; None where there is none."""
    fit = [each for each in report.outcomes if not report.why_not_applied(each)]
    return max(fit, key=lambda each: _at(report, each).speed_up, default=None)


def _at(report: Report, outcome: Outcome) -> Timing:
    timing = outcome.at(report.serving_rows)
    if timing is None:
        raise LookupError(
            f"{outcome.variant.name} was not measured with {report.serving_rows} rows"
        )
    return timing


def _form(report: Report) -> Iterator[str]:
    best = best_form(report)
    if best is None:
        yield from _forms_that_stay(report)
        return
    mine, now = _at(report, best), _at(report, report.present)
    equality = best.equality
    alike = f" {equality.equal_count:,} of {equality.row_count:,} rows equal," if equality else ""
    yield (
        f"Serve {best.variant.name}: {mine.speed_up:.2f} times as fast with {report.serving_rows} "
        f"rows at once,{alike} {mine.cpu_seconds_per_million:.2f} instead of "
        f"{now.cpu_seconds_per_million:.2f} CPU-seconds per million predictions. "
        f"To propose it: homeostat advise {report.model_name} --at {report.serving_rows} --apply "
        f"{best.variant.name}."
    )


def _forms_that_stay(report: Report) -> Iterator[str]:
    """Something is faster and equal, and still can't be applied."""
    for each in report.outcomes:
        timing = each.at(report.serving_rows)
        if each.variant.is_file and timing is not None and is_faster(timing):
            yield (
                f"{each.variant.name} is {timing.speed_up:.2f} times as fast with "
                f"{report.serving_rows} rows at once, but {report.why_not_applied(each)}."
            )


def _batching(report: Report) -> Iterator[str]:
    """The fewest rows beyond which a row gets cheaper by no more than 5 %."""
    timings = sorted(report.present.timings, key=lambda each: each.rows)
    if len(timings) < 2:
        return
    cheapest = min(each.cpu_seconds_per_row for each in timings)
    knee = next(each for each in timings if each.cpu_seconds_per_row <= cheapest * WORTH)
    alone = timings[0]
    gain = alone.cpu_seconds_per_row / knee.cpu_seconds_per_row
    if knee.rows == alone.rows or gain <= WORTH:
        return
    # Whoever waits as long as a run lasts waits twice as long at most; of CPU time, since other
    # work may have drawn out the run.
    delay = knee.rows * knee.cpu_seconds_per_row * 1e3
    yield (
        f"A row alone costs {alone.cpu_seconds_per_row * 1e6:.1f} us of CPU, among {knee.rows} "
        f"{knee.cpu_seconds_per_row * 1e6:.2f} us ({gain:.1f} times less), and more rows bring no "
        f"more than {WORTH - 1:.0%}. Under load requests gather by themselves; to let them wait "
        f"for one another: homeostat serving batching {report.model_name} --max-rows {knee.rows} "
        f"--max-delay {delay:.2g}."
    )


def _compiled(report: Report) -> Iterator[str]:
    found = next((each for each in report.outcomes if each.variant.form is Form.COMPILED), None)
    best = max(found.timings, key=lambda each: each.speed_up, default=None) if found else None
    if best is None or not is_faster(best):
        return
    yield (
        f"As compiled C its trees are {best.speed_up:.2f} times as fast with {best.rows} rows at "
        "once. They are no ONNX file, so the registry can't take them: this is only a report."
    )


def _threads(report: Report) -> Iterator[str]:
    several = [each for each in report.outcomes if each.variant.threads > 1]
    best = max(several, key=_speed_up(report), default=None)
    timing = best.at(report.serving_rows) if best else None
    if best is None or timing is None or not is_faster(timing):
        return
    now = _at(report, report.present)
    more = timing.cpu_seconds_per_row / now.cpu_seconds_per_row
    yield (
        f"{best.variant.threads} threads inside one run answer {report.serving_rows} rows "
        f"{timing.speed_up:.2f} times sooner for {more:.2f} times the CPU. The server runs each "
        "model on one thread: more workers (HOMEOSTAT_INFERENCE_WORKERS) use the cores instead."
    )


def _levels(report: Report) -> Iterator[str]:
    for each in report.outcomes:
        timing = each.at(report.serving_rows)
        if each.variant.name.startswith("graph-") and timing is not None and is_faster(timing):
            yield (
                f"With graph optimisations {each.variant.level} it is {timing.speed_up:.2f} times "
                "as fast as with all of them, which the server uses and has no setting for."
            )


def _speed_up(report: Report) -> Callable[[Outcome], float]:
    def of(outcome: Outcome) -> float:
        timing = outcome.at(report.serving_rows)
        return timing.speed_up if timing else 0.0

    return of
