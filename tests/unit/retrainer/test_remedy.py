"""One run against ports in memory: what it proposes, and how it ends when the world is odd."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import numpy as np
import pyarrow as pa
import pytest

from homeostat import reference
from homeostat.registry.v1.registry_pb2 import Evidence, Lineage, Signature
from homeostat_retrainer.app.ports import (
    Champion,
    DataSet,
    Floats,
    Job,
    Proposal,
    Registered,
    Trained,
)
from homeostat_retrainer.app.remedy import Tools, before_failing, remedy
from homeostat_retrainer.domain.errors import CannotRun, PeerAway, PeerRefused, WorkerDied
from homeostat_retrainer.domain.policy import Trigger
from homeostat_retrainer.domain.runs import Ended, Outcome, Run
from homeostat_retrainer.domain.split import Windows
from homeostat_retrainer.peers import translated
from homeostat_retrainer.recipes import signature_for

ROWS, W, TRAINED_TO = 4000, 2000, 2000
CHAMPION = b"champion"
RUN = Run("run-1", "m", Trigger.ALERT, ROWS, W, "alert-1")


def a_table() -> pa.Table:
    x = np.random.default_rng(0).random(ROWS).astype(np.float32)
    times = np.arange(ROWS)
    return pa.table(
        {
            "x": x,
            "context.city": ["Bern"] * ROWS,
            reference.EVENT_TIME: times,
            reference.KNOWN_AT: times,
            reference.TRUTH: (x > 0.5).astype(float),
        }
    )


def a_signature() -> Signature:
    return signature_for(pa.table({"x": pa.array([1.0])}), classes=["no", "yes"])


@dataclass
class MemoryRegistry:
    proposals: list[Proposal] = field(default_factory=list)
    etags: list[str] = field(default_factory=lambda: ["e1"])
    serves: bool = True
    before: Registered | None = None
    outcome: Outcome = Outcome.PROMOTED

    async def champion(self, model_name: str) -> Champion:
        if not self.serves:
            raise CannotRun("no version of m serves")
        lineage = Lineage(recipe="lightgbm", trained_to_us=TRAINED_TO)
        sha256 = hashlib.sha256(CHAMPION).hexdigest()
        return Champion(1, self.etags[0], sha256, CHAMPION, a_signature(), lineage)

    async def etag(self, model_name: str) -> str:
        if len(self.etags) > 1:
            self.etags.pop(0)
        return self.etags[0]

    async def registered(self, model_name: str, run_id: str) -> Registered | None:
        return self.before

    async def register(self, proposal: Proposal) -> Registered:
        self.proposals.append(proposal)
        return Registered(2, self.outcome, ["said"], proposal.evidence, proposal.lineage)


@dataclass
class MemoryLedger:
    asked: list[tuple[int, int]] = field(default_factory=list)
    error: Exception | None = None

    async def cut(self, model_name: str, known_at_most_us: int, newest_rows: int) -> DataSet:
        self.asked.append((known_at_most_us, newest_rows))
        if self.error is not None:
            raise self.error
        return DataSet(a_table(), "d" * 64)


@dataclass
class MemoryWorkshop:
    """Candidates are as sure of the truth as ``sureness`` says; the champion knows nothing."""

    sureness: Callable[[Job], float] = lambda job: 0.9
    jobs: list[Job] = field(default_factory=list)
    dies: bool = False

    async def train(self, job: Job) -> Trained:
        self.jobs.append(job)
        if self.dies:
            raise WorkerDied("the worker process died")
        return Trained(str(self.sureness(job)).encode(), 0.1)

    async def evaluate(self, model: bytes, signature: Signature, table: pa.Table) -> Floats:
        sure = 0.5 if model == CHAMPION else float(model)
        noise = np.random.default_rng(1).normal(0, 0.01, table.num_rows)
        yes = np.where(table["x"].to_numpy() > 0.5, sure, 1 - sure) + noise
        return np.column_stack([1 - yes, yes])


def tools(**parts: object) -> Tools:
    given = {
        "registry": MemoryRegistry(),
        "ledger": MemoryLedger(),
        "workshop": MemoryWorkshop(),
        "windows": Windows(),
    }
    return Tools(**{**given, **parts})  # type: ignore[arg-type]


async def test_the_proposal_says_what_was_compared() -> None:
    registry, ledger, workshop = MemoryRegistry(), MemoryLedger(), MemoryWorkshop()
    ended = await remedy(RUN, tools(registry=registry, ledger=ledger, workshop=workshop), 7)
    (proposal,) = registry.proposals
    assert ended.outcome is Outcome.PROMOTED
    assert ended.candidate_version == 2
    assert ledger.asked[0][0] == ROWS - 1
    evidence: Evidence = proposal.evidence
    assert evidence.candidate_sha256 == hashlib.sha256(proposal.model).hexdigest()
    assert evidence.candidate_count == len(workshop.jobs) == ended.fit_count
    assert evidence.holdout_rows == 400
    assert (evidence.holdout_from_us, evidence.holdout_to_us) == (3600, 3999)
    assert proposal.lineage.trained_to_us == 3599
    assert proposal.lineage.run_id == RUN.run_id
    assert proposal.fencing_token == 7
    assert evidence.mean_gain == pytest.approx(evidence.champion_loss - evidence.candidate_loss)


async def test_rows_corrected_since_the_champion_saw_them_are_not_in_the_hold_out() -> None:
    first_known_at = np.arange(ROWS)
    # Every tenth of the newest: told long ago, and corrected now.
    first_known_at[-400::10] = 100

    class CorrectedLedger(MemoryLedger):
        async def cut(self, model_name: str, known_at_most_us: int, newest_rows: int) -> DataSet:
            column = pa.array(first_known_at)
            return DataSet(a_table().append_column("homeostat.first_known_at_us", column), "d" * 64)

    registry = MemoryRegistry()
    await remedy(RUN, tools(registry=registry, ledger=CorrectedLedger()), 7)
    (proposal,) = registry.proposals
    assert (proposal.evidence.holdout_rows, proposal.evidence.holdout_from_us) == (400, 3560)


async def test_the_new_reference_is_w_long_and_honest_on_the_holdout_alone() -> None:
    registry = MemoryRegistry()
    await remedy(RUN, tools(registry=registry), 1)
    profile = reference.read(registry.proposals[0].reference)
    assert profile.num_rows == W
    honest = profile[reference.IS_HOLDOUT].to_numpy()
    assert honest.sum() == 400
    assert profile[reference.KNOWN_AT].to_numpy()[honest].min() == 3600
    assert "context.city" in profile.column_names
    assert reference.feature_names(profile) == ["x"]


async def test_candidates_never_see_context_times_or_the_holdout() -> None:
    workshop = MemoryWorkshop()
    await remedy(RUN, tools(workshop=workshop), 1)
    assert {tuple(job.frame.column_names) for job in workshop.jobs} == {("x",)}
    assert [job.frame.num_rows for job in workshop.jobs] == [3600, 2000, 500]


async def test_no_better_candidate_is_an_end_with_a_reason() -> None:
    registry = MemoryRegistry()
    workshop = MemoryWorkshop(sureness=lambda job: 0.5)
    ended = await remedy(RUN, tools(registry=registry, workshop=workshop), 1)
    assert ended.outcome is Outcome.NO_CANDIDATE
    assert not registry.proposals
    assert len(ended.candidates) == 3


async def test_the_best_window_is_proposed() -> None:
    registry = MemoryRegistry()
    workshop = MemoryWorkshop(sureness=lambda job: 0.95 if job.frame.num_rows == 500 else 0.7)
    await remedy(RUN, tools(registry=registry, workshop=workshop), 1)
    assert registry.proposals[0].lineage.training_rows == 500


async def test_a_champion_that_changed_is_compared_once_more() -> None:
    registry = MemoryRegistry(etags=["e1", "e2"])
    ended = await remedy(RUN, tools(registry=registry), 1)
    assert ended.outcome is Outcome.PROMOTED
    assert registry.proposals[0].evidence.champion_etag == "e2"


async def test_a_champion_that_changes_again_and_again_ends_the_run() -> None:
    registry = MemoryRegistry(etags=["e1", "e2", "e3"])
    ended = await remedy(RUN, tools(registry=registry), 1)
    assert ended.outcome is Outcome.REJECTED
    assert not registry.proposals


async def test_a_resumed_run_takes_the_first_answer_and_trains_nothing() -> None:
    workshop = MemoryWorkshop()
    before = Registered(5, Outcome.PROMOTED, ["said before"], Evidence(), Lineage())
    ended = await remedy(RUN, tools(registry=MemoryRegistry(before=before), workshop=workshop), 1)
    assert (ended.outcome, ended.candidate_version) == (Outcome.PROMOTED, 5)
    assert not workshop.jobs


async def test_dead_workers_make_candidates_errors_and_the_run_ends() -> None:
    ended = await remedy(RUN, tools(workshop=MemoryWorkshop(dies=True)), 1)
    assert ended.outcome is Outcome.FAILED
    assert [each.error for each in ended.candidates] == ["the worker process died"] * 3


@pytest.mark.parametrize(
    ("parts", "outcome"),
    [
        ({"registry": MemoryRegistry(serves=False)}, Outcome.NO_CANDIDATE),
        ({"ledger": MemoryLedger(error=PeerRefused("NOT_FOUND"))}, Outcome.FAILED),
    ],
)
async def test_what_cannot_be_is_told_as_an_end(parts: dict[str, object], outcome: Outcome) -> None:
    ended = await remedy(RUN, tools(**parts), 1)
    assert ended.outcome is outcome
    assert ended.reasons


async def test_a_peer_that_is_away_is_not_an_end() -> None:
    with pytest.raises(PeerAway):
        await remedy(RUN, tools(ledger=MemoryLedger(error=PeerAway("UNAVAILABLE"))), 1)


async def test_a_champion_that_does_not_run_is_a_failure_with_its_reason_and_a_cure() -> None:
    class OddWorkshop(MemoryWorkshop):
        async def evaluate(self, model: bytes, signature: Signature, table: pa.Table) -> Floats:
            raise ValueError("INVALID_GRAPH")

    ended = await remedy(RUN, tools(workshop=OddWorkshop()), 1)
    assert ended.outcome is Outcome.FAILED
    assert "INVALID_GRAPH" in ended.reasons[0]
    assert "push a version" in ended.reasons[0]


async def test_an_input_that_the_rows_lack_is_named() -> None:
    class NarrowLedger(MemoryLedger):
        async def cut(self, model_name: str, known_at_most_us: int, newest_rows: int) -> DataSet:
            return DataSet(a_table().rename_columns({"x": "y"}), "d" * 64)

    ended = await remedy(RUN, tools(ledger=NarrowLedger()), 1)
    assert ended.outcome is Outcome.FAILED
    assert "lack 'x', which version 1 takes" in ended.reasons[0]


async def test_a_failure_after_the_proposal_went_through_is_told_as_what_was_decided() -> None:
    failed = Ended(Outcome.FAILED, ["the registry says INTERNAL"])
    before = Registered(5, Outcome.PROMOTED, ["said before"], Evidence(), Lineage())
    found = await before_failing(RUN, failed, tools(registry=MemoryRegistry(before=before)))
    assert (found.outcome, found.candidate_version) == (Outcome.PROMOTED, 5)
    assert await before_failing(RUN, failed, tools()) is failed


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (grpc.StatusCode.INTERNAL, PeerAway),
        (grpc.StatusCode.UNKNOWN, PeerAway),
        (grpc.StatusCode.UNAVAILABLE, PeerAway),
        (grpc.StatusCode.ABORTED, PeerAway),
        (grpc.StatusCode.NOT_FOUND, PeerRefused),
        (grpc.StatusCode.FAILED_PRECONDITION, PeerRefused),
    ],
)
def test_what_may_pass_is_tried_again(code: grpc.StatusCode, meaning: type[Exception]) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())
    with pytest.raises(meaning), translated("registry"):
        raise error
