"""The monitor's settings, read once from the environment."""

from pathlib import Path

from pydantic import PositiveInt
from pydantic_settings import SettingsConfigDict

from homeostat_kit.settings import ServiceSettings


class MonitorSettings(ServiceSettings):
    """Environment prefix HOMEOSTAT_MONITOR_."""

    model_config = SettingsConfigDict(env_prefix="HOMEOSTAT_MONITOR_", frozen=True, extra="ignore")

    grpc_address: str = "127.0.0.1:50054"
    # Where versions and their reference profiles come from.
    registry_address: str = "127.0.0.1:50051"
    # Asked for the rows behind an alert, to find segments; empty: alerts are told once.
    ledger_address: str = ""
    # The ledger may be away or behind for so long; then the alert is told without segments.
    deepening_give_up_seconds: float = 300.0
    # Fixes the windows' length; None derives it per version from its reference.
    window_seconds: int | None = None
    # So many retrainings without a better model make an alert's level the new normal.
    runs_until_accepted: int = 4
    # Records per poll of a topic.
    poll_records: int = 500
    # This process's name among monitors of one database.
    instance: str = "monitor-0"
    # An instance that was not heard of for so long is dead: the others take what it had.
    lease_seconds: float = 10.0
    # Hosts that policies may post alerts to, separated by commas: hooks.example.com, *.example.com,
    # hooks.internal:8443, http://hooks.internal (plain http too); * is every public address.
    webhook_hosts: str = "localhost,127.0.0.1,[::1]"
    # Files with signing keys (whsec_<base64>, one a line), named by policies; None: webhook-secrets
    # in the data folder.
    webhook_secrets_folder: Path | None = None
    # One post as a whole.
    webhook_timeout_seconds: float = 10.0
    # A notification that nobody took for so long is given up.
    webhook_give_up_seconds: float = 259200.0
    # Alerts that ended are kept so long, with their events and what people said of them.
    alert_retention_days: PositiveInt = 400
    # So long, what only helps to find faults: notifications that came to an end, ended mutes, and
    # which ended alerts were looked into.
    delivery_retention_days: PositiveInt = 30
