"""What would help, ranked: each step only where it does."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.diagnosis import Case, LossEvidence, Step, StepKind
from homeostat_monitor.domain.diagnosis.mixture import Mixture
from homeostat_monitor.domain.diagnosis.picture import LOSS_RULES, Picture
from homeostat_monitor.domain.diagnosis.surroundings import bias_moved
from homeostat_monitor.domain.judges import Rule

# Share of a rise of squared losses that an even residual explains, from which on it is the cause.
_MOSTLY = 0.8
# Features that a step names.
_NAMED = 3


def steps_of(
    case: Case, cause: Cause, picture: Picture, looks: Sequence[str], mixed: Mixture | None
) -> list[Step]:
    """Best first. ``looks``: what is wrong with the features, one phrase each."""
    return _BY_CAUSE[cause](case, picture, looks, mixed)


def _names(picture: Picture) -> str:
    return ", ".join(each.feature for each in picture.shares[:_NAMED]) or "the inputs"


def _loss_rose(case: Case) -> bool | None:
    """None: no truths tell."""
    if case.rule in LOSS_RULES:
        return True
    return None if case.loss is None else case.loss.since_us is not None


def _data_break(
    case: Case, picture: Picture, looks: Sequence[str], mixed: Mixture | None
) -> list[Step]:
    what = "; ".join(looks) or f"{_names(picture)}: look at the source, its joins and codes"
    return [
        Step(
            StepKind.FIX_UPSTREAM,
            f"Fix the source of {_names(picture)}: {what}.",
            "the model does what it was trained for; what it is fed is not what it says",
        ),
        Step(
            StepKind.INVESTIGATE,
            "If the new values are meant, change the reference and the training data with them.",
            "a model that learns broken data stays wrong when the source is mended",
        ),
    ]


def _covariate(
    case: Case, picture: Picture, looks: Sequence[str], mixed: Mixture | None
) -> list[Step]:
    retrain = Step(
        StepKind.RETRAIN,
        "Retrain on a span that contains the new population.",
        f"{_names(picture)} left what the model was trained on",
    )
    rose = _loss_rose(case)
    if rose:
        return [retrain, _look_at_segments()]
    wait = Step(
        StepKind.DO_NOTHING,
        "Watch the loss: inputs that move need not hurt.",
        "the loss has not risen" if rose is False else "no truths say yet that it hurts",
    )
    return [wait, retrain] if rose is False else [retrain, wait]


def _look_at_segments() -> Step:
    return Step(
        StepKind.INVESTIGATE,
        "Look at the segments where the loss is highest.",
        "the new population may need an input that the model lacks",
    )


def _label_shift(
    case: Case, picture: Picture, looks: Sequence[str], mixed: Mixture | None
) -> list[Step]:
    shares = "" if mixed is None else " (" + ", ".join(f"{each:.0%}" for each in mixed.after) + ")"
    return [
        Step(
            StepKind.RECALIBRATE,
            f"Adjust the scores to the new shares of the classes{shares}.",
            "within each class the inputs are as before: only how often classes come changed",
        ),
        Step(
            StepKind.RETRAIN,
            "Retrain on the newest truths.",
            "it learns the new shares as well, at a higher cost",
        ),
    ]


def _concept(
    case: Case, picture: Picture, looks: Sequence[str], mixed: Mixture | None
) -> list[Step]:
    retrain = Step(
        StepKind.RETRAIN,
        "Retrain on the newest truths.",
        "what follows from the inputs changed, and only newer truths know it",
    )
    found = [retrain]
    if case.loss is not None and bias_moved(case.loss):
        recalibrate = Step(
            StepKind.RECALIBRATE,
            f"Correct the scores by {_off(case.loss):+.3g} on average.",
            "truths differ from scores evenly; the ranking may be as good as before",
        )
        found.insert(0 if _is_even(case.loss) else 1, recalibrate)
    return [
        *found,
        Step(
            StepKind.INVESTIGATE,
            "If no candidate is better, look for an input that explains the change.",
            "the model may depend on something that it is not told",
        ),
    ]


def _off(loss: LossEvidence) -> float:
    return (loss.bias or 0.0) - (loss.reference_bias or 0.0)


def _is_even(loss: LossEvidence) -> bool:
    """Of squared losses: an even residual of b raises their mean by b squared. 0/1 losses and
    truths of classes do not tell."""
    rise = loss.observed - loss.reference
    return not loss.priors and rise > 0 and _off(loss) ** 2 >= _MOSTLY * rise


def _new_version(
    case: Case, picture: Picture, looks: Sequence[str], mixed: Mixture | None
) -> list[Step]:
    return [
        Step(
            StepKind.ROLL_BACK,
            "Serve the version before again.",
            "it began when this version took over, and the one before did not show it",
        ),
        Step(
            StepKind.INVESTIGATE,
            f"Compare {_names(picture)} in training and in serving.",
            "the two may be made by different code",
        ),
    ]


def _infrastructure(
    case: Case, picture: Picture, looks: Sequence[str], mixed: Mixture | None
) -> list[Step]:
    return [
        Step(
            StepKind.FIX_UPSTREAM,
            "Look at what carries predictions and truths: senders, queues, clocks, joins.",
            "rows come late, twice, not at all or at an unusual rate",
        ),
        Step(
            StepKind.DO_NOTHING,
            "Leave the model as it is.",
            "nothing says that it fits worse",
        ),
    ]


def _unknown(
    case: Case, picture: Picture, looks: Sequence[str], mixed: Mixture | None
) -> list[Step]:
    if case.rule is Rule.MISSING_VALUES and not picture.shares:
        return [
            Step(
                StepKind.INVESTIGATE,
                "Ask the model for rows since then by hand: its scores are no finite numbers.",
                "the inputs are as before",
            )
        ]
    return [
        Step(
            StepKind.INVESTIGATE,
            f"Look at the rows since then, {_names(picture)} first.",
            "no class of causes stands out",
        )
    ]


_Steps = Callable[[Case, Picture, Sequence[str], Mixture | None], list[Step]]
_BY_CAUSE: Mapping[Cause, _Steps] = MappingProxyType(
    {
        Cause.DATA_BREAK: _data_break,
        Cause.COVARIATE: _covariate,
        Cause.LABEL_SHIFT: _label_shift,
        Cause.CONCEPT: _concept,
        Cause.NEW_VERSION: _new_version,
        Cause.INFRASTRUCTURE: _infrastructure,
        Cause.UNKNOWN: _unknown,
    }
)
