"""What the retrainer can be told from outside."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from homeostat_kit.settings import ServiceSettings


class RetrainerSettings(ServiceSettings):
    """Environment prefix HOMEOSTAT_RETRAINER_.

    Shares are of the reference length W: the rows of the history that the first version came with.
    """

    model_config = SettingsConfigDict(
        env_prefix="HOMEOSTAT_RETRAINER_", frozen=True, extra="ignore"
    )

    grpc_address: str = "127.0.0.1:50055"
    # Where the registry listens.
    registry_address: str = "127.0.0.1:50051"
    # Where the ledger listens.
    ledger_address: str = "127.0.0.1:50053"
    # Must differ between processes that share a database; one of them works at a time.
    instance_id: str = "retrainer-0"
    # New truths between two runs, as a share of W.
    cool_down_share: float = Field(default=0.1, ge=0)
    # New truths since the last run that make a trial due; 0 turns it off.
    truth_volume_share: float = Field(default=0.25, ge=0)
    # New truths after an alert's opening at which to try again while it is open.
    follow_up_shares: tuple[float, ...] = (0.05, 0.2, 0.5)
    # Event time between two runs that makes a trial due; 0 turns it off.
    schedule_seconds: int = Field(default=0, ge=0)
    # At most so many runs begin within the budget's period.
    budget_runs: int = Field(default=24, ge=0)
    # The budget's period, in event time.
    budget_period_seconds: int = Field(default=86_400, gt=0)
    # The longest training window, as a multiple of W.
    longest_window_share: float = Field(default=12.0, ge=1)
    # Address space of one worker process; libraries reserve far more than they use.
    worker_memory_bytes: int = Field(default=6 * 1024**3, gt=0)
    # CPU time of one job; its worker is ended beyond it.
    worker_cpu_seconds: int = Field(default=300, gt=0)
    # Wall time of one job; its worker is ended beyond it.
    worker_wall_seconds: float = Field(default=600.0, gt=0)
    # Serving goes before training.
    worker_niceness: int = Field(default=5, ge=0, le=19)
    # For how long a run waits for a peer that is away before it ends as failed.
    peer_away_seconds: float = Field(default=600.0, gt=0)
    # After a crash another instance may take over once this has passed.
    lease_seconds: float = Field(default=10.0, gt=0)
