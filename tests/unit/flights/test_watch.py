"""What a person reads of alerts while the year is played."""

from io import StringIO

import numpy as np
import pyarrow as pa
from rich.console import Console

from homeostat.events.v1 import alert_pb2 as pb
from homeostat_flights.flights import Flights
from homeostat_flights.player import Tally
from homeostat_flights.screen import Screen
from homeostat_flights.watch import Watch

NOBODY = np.zeros(0)
NO_FLIGHTS = Flights(
    pa.table({"x": pa.array([], pa.float32())}),
    NOBODY,
    NOBODY.astype(np.int64),
    NOBODY.astype(np.int64),
    NOBODY.astype(object),
    NOBODY.astype(np.int64),
)


def an_alert(number: int, rule: "pb.AlertRule.ValueType", feature: str = "") -> pb.Alert:
    alert = pb.Alert(alert_id=str(number), rule=rule, feature=feature, revision=1)
    alert.state, alert.summary, alert.cause = pb.ALERT_STATE_OPENED, "Up.", pb.CAUSE_CLASS_CONCEPT
    return alert


def test_alerts_that_end_together_have_one_line_and_what_was_told_is_not_told_again() -> None:
    said = StringIO()
    screen = Screen(Console(file=said, width=200))
    watch = Watch({}, "m", NO_FLIGHTS, NOBODY, Tally.of(0), screen, incident=False)
    alerts = [
        an_alert(1, pb.ALERT_RULE_PERFORMANCE),
        an_alert(2, pb.ALERT_RULE_COVARIATE, "precip"),
    ]
    watch._tell_alerts(alerts)
    for each in alerts:
        each.revision, each.state = 2, pb.ALERT_STATE_DIAGNOSED
    watch._tell_alerts(alerts)
    for each in alerts:
        each.revision, each.state = 3, pb.ALERT_STATE_RESOLVED
        each.resolution, each.summary = pb.RESOLUTION_SUPERSEDED, "Resolved: version 2 serves now."
    watch._tell_alerts(alerts)
    watch._tell_alerts(alerts)
    assert said.getvalue().splitlines() == [
        "1970-01-01 alert Up. Cause: concept.",
        "1970-01-01 alert Up. Cause: concept.",
        "1970-01-01 superseded performance, covariate of precip: version 2 serves now.",
    ]
