"""A backtest as the contract writes it."""

from homeostat.monitor.v1 import monitor_pb2 as pb
from homeostat_monitor.messages.alerts import message_of
from homeostat_monitor.past.backtests import Ended, Step


def backtest_message(said: Step | Ended) -> pb.BacktestPolicyResponse:
    """Progress, or the result."""
    if isinstance(said, Step):
        progress = pb.BacktestProgress(
            rows_done=said.rows, rows_total=said.of_rows, alerts=said.alerts
        )
        return pb.BacktestPolicyResponse(progress=progress)
    found = said.result
    result = pb.BacktestResult(
        alerts=map(message_of, found.alerts),
        rows=found.rows,
        truths=found.truths,
        alerts_of_present_policy=len(found.present),
        remarks=found.remarks,
    )
    result.event_from.FromMicroseconds(said.event_from_us)
    result.event_before.FromMicroseconds(said.event_before_us)
    return pb.BacktestPolicyResponse(result=result)
