"""Every metric of the monitor, with unit and meaning."""

from opentelemetry.metrics import Meter


class Metrics:
    """Instruments, made once."""

    def __init__(self, meter: Meter) -> None:
        self.predictions = meter.create_counter(
            "homeostat.monitor.predictions", "{row}", "Predictions taken in, each once"
        )
        self.losses = meter.create_counter(
            "homeostat.monitor.losses", "{row}", "First truths fed to the loss detectors"
        )
        self.windows = meter.create_counter(
            "homeostat.monitor.windows", "{window}", "Windows judged"
        )
        self.faults = meter.create_counter(
            "homeostat.monitor.judging_faults",
            "{fault}",
            "Tries to judge a model that failed by a bug its data met, by model and error class",
        )
        self.alerts = meter.create_counter(
            "homeostat.monitor.alerts", "{event}", "Alert events, by rule, state and severity"
        )
        self.notifications = meter.create_counter(
            "homeostat.monitor.notifications",
            "{try}",
            "Tries at webhooks, by outcome: delivered, failed, gone, given_up",
        )
        self.unreadable = meter.create_counter(
            "homeostat.monitor.unreadable_blocks",
            "{block}",
            "Blocks whose columns did not fit; they went to the dead-letter topic",
        )
        self.take_seconds = meter.create_histogram(
            "homeostat.monitor.take.duration", "s", "Taking in one poll, transaction included"
        )
        self.judge_seconds = meter.create_histogram(
            "homeostat.monitor.judge.duration", "s", "Judging what was due of one model"
        )
