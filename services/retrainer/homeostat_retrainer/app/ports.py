"""What a run needs of the world."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.registry.v1.registry_pb2 import Evidence, Lineage, Signature
from homeostat_retrainer.domain.runs import Outcome

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that serves, as it was when the run looked."""

    version: int
    etag: str
    sha256: str
    model: bytes
    signature: Signature
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class Registered:
    """What the registry made of a proposal."""

    version: int
    outcome: Outcome
    reasons: Sequence[str]
    evidence: Evidence
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate with all that the gate wants to know."""

    model_name: str
    model: bytes
    reference: bytes
    signature: Signature
    lineage: Lineage
    evidence: Evidence
    occurred_at_us: int
    fencing_token: int


class Registry(Protocol):
    """PeerAway where it does not answer, PeerRefused where it says no for good."""

    async def champion(self, model_name: str) -> Champion:
        """With its artifact; CannotRun where no version serves."""
        ...

    async def etag(self, model_name: str) -> str:
        """The model's etag now."""
        ...

    async def registered(self, model_name: str, run_id: str) -> Registered | None:
        """What that run registered already."""
        ...

    async def register(self, proposal: Proposal) -> Registered:
        """Proposes; a repeat of the same run gives the first answer."""
        ...


@dataclass(frozen=True, slots=True)
class DataSet:
    """Rows ordered by (known-at, event time): inputs, contexts, times and truth."""

    table: pa.Table
    sha256: str


class Ledger(Protocol):
    """PeerAway where it does not answer, PeerRefused where it says no for good."""

    async def cut(self, model_name: str, known_at_most_us: int, newest_rows: int) -> DataSet:
        """Rows whose truth was known by then."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """What one candidate is made of."""

    recipe: str
    parameters: str
    seed: int
    signature: Signature
    frame: pa.Table
    truth: Floats
    # Parity is checked on these rows.
    holdout: pa.Table


@dataclass(frozen=True, slots=True)
class Trained:
    """A candidate that says as ONNX what it says at its source."""

    model: bytes
    fit_seconds: float


class Workshop(Protocol):
    """Processes that train and run models, so that none can harm the service.

    WorkerDied where one was ended on the way; a ValueError where the rows give no model.
    """

    async def train(self, job: Job) -> Trained:
        """Trains, converts, checks parity."""
        ...

    async def evaluate(self, model: bytes, signature: Signature, table: pa.Table) -> Floats:
        """The score output for each row, shape (rows, outputs)."""
        ...
