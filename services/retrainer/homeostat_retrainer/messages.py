"""Between the domain's words and the contract's messages."""

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.events.v1 import retraining_run_pb2 as pb
from homeostat.events.v1.alert_pb2 import (
    ALERT_RULE_ARRIVAL_RATE,
    ALERT_RULE_CORRELATION,
    ALERT_RULE_COVARIATE,
    ALERT_RULE_DUPLICATES,
    ALERT_RULE_MISSING_VALUES,
    ALERT_RULE_OUT_OF_RANGE,
    ALERT_RULE_PERFORMANCE,
    ALERT_RULE_PREDICTION,
    ALERT_RULE_STUCK,
    ALERT_RULE_UNSEEN_VALUES,
    ALERT_STATE_DIAGNOSED,
    ALERT_STATE_RESOLVED,
    CAUSE_CLASS_DATA_BREAK,
    Alert,
)
from homeostat_retrainer.domain.memory import HeldAlert
from homeostat_retrainer.domain.policy import AlertSeen, Trigger
from homeostat_retrainer.domain.runs import Ended, Outcome, Run, Tried

_TRIGGERS: Mapping[Trigger, "pb.RunTrigger.ValueType"] = {
    Trigger.ALERT: pb.RUN_TRIGGER_ALERT,
    Trigger.FOLLOW_UP: pb.RUN_TRIGGER_FOLLOW_UP,
    Trigger.TRUTH_VOLUME: pb.RUN_TRIGGER_TRUTH_VOLUME,
    Trigger.SCHEDULE: pb.RUN_TRIGGER_SCHEDULE,
    Trigger.REQUEST: pb.RUN_TRIGGER_REQUEST,
}
_OUTCOMES: Mapping[Outcome, "pb.RunOutcome.ValueType"] = {
    Outcome.PROMOTED: pb.RUN_OUTCOME_PROMOTED,
    Outcome.REJECTED: pb.RUN_OUTCOME_REJECTED,
    Outcome.AWAITS_APPROVAL: pb.RUN_OUTCOME_AWAITS_APPROVAL,
    Outcome.NO_CANDIDATE: pb.RUN_OUTCOME_NO_CANDIDATE,
    Outcome.SKIPPED: pb.RUN_OUTCOME_SKIPPED,
    Outcome.FAILED: pb.RUN_OUTCOME_FAILED,
}


def due_message(run: Run) -> pb.RetrainingRun:
    """A run that has not begun."""
    occurred_at = Timestamp()
    occurred_at.FromMicroseconds(run.watermark_us)
    return pb.RetrainingRun(
        run_id=run.run_id,
        model_name=run.model_name,
        trigger=_TRIGGERS[run.trigger],
        alert_id=run.alert_id,
        follow_up_number=run.follow_up_number,
        cut_known_at_us=run.cut_known_at_us,
        occurred_at=occurred_at,
    )


def started_message(run: Run) -> pb.RetrainingRun:
    """A run that begins."""
    message = due_message(run)
    message.state = pb.RUN_STATE_STARTED
    return message


def ended_message(run: Run, ended: Ended, wall_seconds: float) -> pb.RetrainingRun:
    """A run with its outcome."""
    message = due_message(run)
    message.state = pb.RUN_STATE_ENDED
    message.outcome = _OUTCOMES[ended.outcome]
    message.champion_version = ended.champion_version
    if ended.candidate_version is not None:
        message.candidate_version = ended.candidate_version
    message.data_set_sha256 = ended.data_set_sha256
    message.holdout_rows = ended.holdout_rows
    message.candidates.extend(_candidate(each) for each in ended.candidates)
    message.reasons.extend(ended.reasons)
    message.fit_count = ended.fit_count
    message.wall_seconds = wall_seconds
    return message


def _candidate(tried: Tried) -> pb.CandidateResult:
    result = pb.CandidateResult(
        recipe=tried.recipe,
        window=tried.window,
        training_rows=tried.training_rows,
        fit_seconds=tried.fit_seconds,
        error=tried.error,
    )
    if tried.gain is not None:
        result.mean_gain = tried.gain.mean
        result.gain_deviation = tried.gain.deviation
    return result


# They say that inputs moved or broke: of them it matters only whether data are broken.
_INPUT_RULES = frozenset(
    {
        ALERT_RULE_COVARIATE,
        ALERT_RULE_MISSING_VALUES,
        ALERT_RULE_UNSEEN_VALUES,
        ALERT_RULE_PREDICTION,
        ALERT_RULE_OUT_OF_RANGE,
        ALERT_RULE_STUCK,
        ALERT_RULE_DUPLICATES,
        ALERT_RULE_ARRIVAL_RATE,
        ALERT_RULE_CORRELATION,
    }
)


def is_heard(alert: Alert) -> bool:
    """Whether the policy wants to know of it. An estimated loss, labels that come late, a person's
    own threshold: these say nothing that a retraining could rest on."""
    return alert.rule == ALERT_RULE_PERFORMANCE or alert.rule in _INPUT_RULES


def alert_seen(alert: Alert, traceparent: str | None) -> HeldAlert | None:
    """What the policy needs of it; None where it wants to know nothing."""
    if not is_heard(alert):
        return None
    seen = AlertSeen(
        alert_id=alert.alert_id,
        version=alert.version,
        is_resolved=alert.state == ALERT_STATE_RESOLVED,
        watermark_us=alert.watermark_us,
        is_of_performance=alert.rule == ALERT_RULE_PERFORMANCE,
        is_data_break=alert.cause == CAUSE_CLASS_DATA_BREAK,
        confidence=alert.diagnosis.confidence if 0 <= alert.diagnosis.confidence <= 1 else 0.0,
        is_diagnosis=alert.state == ALERT_STATE_DIAGNOSED,
        settled_at_us=alert.settled_at_us,
    )
    # Whoever sent it may have put anything there.
    return HeldAlert(alert.model_name, seen, safe_traceparent(traceparent))


def safe_traceparent(told: str | None) -> str | None:
    """A record's header as it may be stored: printable ASCII, else None."""
    return told if told is not None and told.isascii() and told.isprintable() else None
