"""The monitor's settings, read once from the environment."""

from pydantic_settings import SettingsConfigDict

from homeostat_kit.settings import ServiceSettings


class MonitorSettings(ServiceSettings):
    """Environment prefix HOMEOSTAT_MONITOR_."""

    model_config = SettingsConfigDict(env_prefix="HOMEOSTAT_MONITOR_", frozen=True, extra="ignore")

    grpc_address: str = "127.0.0.1:50054"
    # Where versions and their reference profiles come from.
    registry_address: str = "127.0.0.1:50051"
    # Fixes the windows' length; None derives it per version from its reference.
    window_seconds: int | None = None
    # So many retrainings without a better model make an alert's level the new normal.
    runs_until_accepted: int = 4
    # Records per poll of a topic.
    poll_records: int = 500
    # This process's name among monitors of one database.
    instance: str = "monitor-0"
    lease_seconds: float = 10.0
