"""Evidence that does not come from the inputs: losses and truths, the version, the traffic."""

import numpy as np

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.alerts.texts import change_text
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import Case, Evidence, FeatureShare, LossEvidence
from homeostat_monitor.domain.diagnosis.picture import LOSS_RULES, Picture
from homeostat_monitor.domain.judges import Rule

_LABEL_RULES = frozenset({Rule.LABEL_DELAY, Rule.LABEL_COVERAGE})
# Deviations of chance beyond which a mean or a share is said to have moved.
_CERTAIN = 4.0
# So many truths would show a shift of the classes that inputs show.
_MANY_TRUTHS = 200
_LATE = 0.05
# A row of broken data loses at most so many times the reference's mean where losses have no bound;
# below the first part of the rows, or the second of the rise or of its time, it is about no break.
_MOST_TIMES = 20.0
_FEW_ROWS, _PART = 0.2, 0.5
# Logarithm of the spans of the interval that a version served, from which on it is no chance.
_OFTEN = float(np.log(10.0))
# Scores follow from inputs and version: with inputs as always it is the version. A new concept
# leaves scores where they were, so a loss that rose as well speaks for the version too.
_VERSION, _AND_LOSS = 4.0, 1.0
# Predictions per window over the expected: what no ordinary day shows.
_FEW, _MANY = 0.5, 2.0


def of_loss(case: Case, picture: Picture) -> list[Evidence]:
    """The loss rose: with inputs as before what follows from them changed."""
    if case.rule in _LABEL_RULES:
        # Truths that do not come say nothing of what is true.
        return []
    loss = case.loss
    rose = case.rule in LOSS_RULES or (loss is not None and loss.since_us is not None)
    if not rose:
        return []
    found = []
    known = bool(case.windows) or bool(case.findings)
    figures = "" if loss is None else f" ({change_text(loss.name, loss.observed, loss.reference)})"
    if known and not picture.inputs_moved and picture.covered:
        text = f"inputs are as in the reference, what follows from them is not{figures}"
        found.append(Evidence(Cause.CONCEPT, 4.0, text))
    elif known and not picture.inputs_moved:
        text = f"the inputs since then are not judged yet; until then they were as always{figures}"
        found.append(Evidence(Cause.CONCEPT, 2.0, text))
    elif not any(loss_explained(case, picture).values()) and picture.doings:
        text = f"what moved in the inputs does not explain the rise{figures}"
        found.append(Evidence(Cause.CONCEPT, 3.0, text))
    elif case.rule is Rule.CONCEPT:
        text = f"truths differ from scores as never before{figures}"
        found.append(Evidence(Cause.CONCEPT, 2.5, text))
    if loss is not None and bias_moved(loss):
        text = f"truths less scores are {loss.bias:+.3g} on average, not {loss.reference_bias:+.3g}"
        found.append(Evidence(Cause.CONCEPT, 1.0, text))
    return found + _of_priors(loss, picture)


def loss_explained(case: Case, picture: Picture) -> dict[str, float]:
    """Per feature the part of a risen loss that its break explains at most, 0 to 1; empty where no
    loss rose. Only rows that are broken lose more, none of them more than all, and only from the
    break on."""
    loss = case.loss
    if case.rule not in LOSS_RULES or loss is None:
        return {}
    found = {}
    for each in picture.shares:
        is_in_time = picture.covered >= _PART
        part = picture.covered * _broken_rows(each) if is_in_time else 0.0
        rise = loss.observed - loss.reference
        if rise > 0:
            most = max(1.0, loss.observed) if loss.observed <= 1 else _MOST_TIMES * loss.reference
            part = min(part * max(most - loss.reference, 0.0) / rise, part / _FEW_ROWS, 1.0)
        found[each.feature] = float(part) if part >= _PART else 0.0
    return found


def _broken_rows(share: FeatureShare) -> float:
    """Of nulls and texts never seen those that came; of a moved value all rows."""
    if share.finding.rule not in (Rule.MISSING_VALUES, Rule.UNSEEN_VALUES):
        return 1.0
    return max(share.finding.observed - share.finding.reference, 0.0)


def bias_moved(loss: LossEvidence) -> bool:
    """The mean residual left its reference by more than chance."""
    if loss.bias is None or loss.reference_bias is None or loss.rows < 1:
        return False
    # A residual's variance is at most its mean square; of a probability at most 1/4.
    variance = 0.25 if max(loss.observed, loss.reference) <= 1 else loss.observed
    moved = abs(loss.bias - loss.reference_bias)
    return moved > _CERTAIN * float(np.sqrt(variance / loss.rows))


def _of_priors(loss: LossEvidence | None, picture: Picture) -> list[Evidence]:
    if loss is None or len(loss.priors) != len(loss.reference_priors) or not loss.rows:
        return []
    now, was = np.array(loss.priors), np.array(loss.reference_priors)
    if len(now) < 2:
        return []
    deviates = np.abs(now - was) / np.sqrt(np.maximum(was * (1 - was), 1e-4) / loss.rows)
    most = int(np.argmax(deviates))
    if deviates[most] < _CERTAIN:
        text = f"the classes' shares among the truths are as before ({was[most]:.0%})"
        return [Evidence(Cause.LABEL_SHIFT, -3.0 if loss.rows >= _MANY_TRUTHS else -1.0, text)]
    text = f"class {most} is {now[most]:.0%} of the truths, was {was[most]:.0%}"
    if picture.inputs_moved:
        return [Evidence(Cause.LABEL_SHIFT, 2.0, text)]
    return [Evidence(Cause.CONCEPT, 1.0, f"{text}, with inputs as before")]


def of_surroundings(case: Case, picture: Picture) -> list[Evidence]:
    """Versions, arrivals, late and repeated rows."""
    return [
        *_of_version(case, picture),
        *_of_traffic(case),
        *_of_duplicates(case, picture),
        *_of_labels(case),
    ]


def _of_version(case: Case, picture: Picture) -> list[Evidence]:
    """That a change falls together with a new version by chance is as likely as its interval is
    wide, over all that was looked at."""
    serving = case.around.serving_since_us
    if serving is None or not case.windows:
        return []
    change, begin = picture.change, case.windows[0].start_us
    width = max(change.to_us - change.from_us, case.windows[0].end_us - begin, 1)
    begin = min(begin, serving)
    if change.from_us - width <= serving <= change.to_us + width:
        chance = float(np.clip(np.log((case.at_us - begin) / width), 0.0, 4.0))
        weight = 3.0 + chance
        if case.mode is Mode.TIME_ORDERED:
            # All that happens to a version of a few windows begins near its begin, and where the
            # season left the reference before it shows from its first window on.
            weight *= min(chance / _OFTEN, 1.0)
            weight *= 0.5 if change.from_us <= case.windows[0].start_us else 1.0
            if _is_scores_alone(case, picture, serving):
                own = _VERSION + _AND_LOSS * (case.rule in LOSS_RULES)
                text = "from the version's first window on its scores are not those of its"
                text += " reference, while its inputs are"
                return [Evidence(Cause.NEW_VERSION, max(weight, own), text)]
        return [Evidence(Cause.NEW_VERSION, weight, "it began when the version took over")]
    return [Evidence(Cause.NEW_VERSION, -2.0, "the version had served before it began")]


def _is_scores_alone(case: Case, picture: Picture, serving_us: int) -> bool:
    """The scores left nature from the version's first window on, no input did."""
    told = {each.rule for each in case.findings if each.is_breach and not each.feature}
    moved = Rule.PREDICTION in told | {case.rule}
    first_us = max(serving_us, case.windows[0].start_us)
    return moved and not picture.inputs_moved and picture.change.from_us <= first_us


def _of_traffic(case: Case) -> list[Evidence]:
    around, found = case.around, []
    if around.late_share > _LATE:
        text = f"{around.late_share:.0%} of the rows came after their window was closed"
        found.append(Evidence(Cause.INFRASTRUCTURE, 2.5, text))
    ratio = around.arrival_ratio
    if ratio is not None and not _FEW < ratio < _MANY:
        found.append(Evidence(Cause.INFRASTRUCTURE, 2.5, _how_many(ratio)))
    if case.rule is Rule.ARRIVAL_RATE:
        text = "predictions do not come at the rate that the calendar leads to expect"
        found.append(Evidence(Cause.INFRASTRUCTURE, 4.0, text))
    return found


def _how_many(ratio: float) -> str:
    usual = "than the calendar leads to expect"
    if ratio < 1:
        return f"{1 / ratio:,.3g} times fewer predictions came {usual}"
    return f"{ratio:,.3g} times more predictions came {usual}"


def _of_duplicates(case: Case, picture: Picture) -> list[Evidence]:
    told = [each for each in case.findings if each.is_breach and each.rule is Rule.DUPLICATES]
    if not told or (case.mode is Mode.TIME_ORDERED and case.rule is not Rule.DUPLICATES):
        # In order of time weather that is null for hours makes rows alike: another alert's matter.
        return []
    text = f"the same rows came again ({told[0].observed:.2g} further copies per row)"
    if picture.inputs_moved:
        return [Evidence(Cause.DATA_BREAK, 3.0, f"{text}, and inputs moved with them")]
    return [Evidence(Cause.INFRASTRUCTURE, 4.0, f"{text}, with inputs as before: sent twice")]


def _of_labels(case: Case) -> list[Evidence]:
    if case.rule not in _LABEL_RULES:
        return []
    text = "truths come later or fewer than before, which says nothing of the model"
    return [Evidence(Cause.INFRASTRUCTURE, 4.0, text)]
