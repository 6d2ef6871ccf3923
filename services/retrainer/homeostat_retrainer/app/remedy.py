"""One run: cut, split, train, compare, propose. The same run makes the same proposal again."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from homeostat import reference, schema
from homeostat.registry.v1.registry_pb2 import Evidence, Lineage, Signature, TensorSpec
from homeostat_retrainer.app.ports import (
    Champion,
    DataSet,
    Floats,
    Job,
    Ledger,
    Proposal,
    Registered,
    Registry,
    Trained,
    Workshop,
)
from homeostat_retrainer.domain.errors import (
    CannotCompare,
    CannotRun,
    PeerAway,
    PeerRefused,
    StaleChampion,
    WorkerDied,
)
from homeostat_retrainer.domain.gate import choose, paired_gain
from homeostat_retrainer.domain.runs import Ended, Outcome, Run, Tried
from homeostat_retrainer.domain.split import Split, Windows, holdout_length, split, without_seen

# Beside another champion the comparison is done once more; then the next run may try.
_ATTEMPTS = 2
_DEFAULT_RECIPE = "lightgbm"
_FIRST_KNOWN_AT = "homeostat.first_known_at_us"


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run works with."""

    registry: Registry
    ledger: Ledger
    workshop: Workshop
    windows: Windows
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Bench:
    """What candidates are compared on."""

    champion: Champion
    data: DataSet
    split: Split
    # Of the champion, on the hold-out.
    losses: Floats

    @property
    def holdout(self) -> pa.Table:
        start, end = self.split.holdout
        return self.data.table.slice(start, end - start)

    @property
    def truths(self) -> Floats:
        truths: Floats = self.holdout[reference.TRUTH].to_numpy()
        return truths


@dataclass(frozen=True, slots=True)
class _Candidate:
    tried: Tried
    trained: Trained | None = None
    losses: Floats | None = None


async def remedy(run: Run, tools: Tools, fencing_token: int) -> Ended:
    """Does the run, or says what it did already. PeerAway where it must be tried again later."""
    for _ in range(_ATTEMPTS):
        try:
            return await _attempt(run, tools, fencing_token)
        except StaleChampion:
            continue
        except CannotRun as error:
            return Ended(Outcome.NO_CANDIDATE, [str(error)])
        except (PeerRefused, WorkerDied, CannotCompare) as error:
            return Ended(Outcome.FAILED, [str(error)])
    return Ended(Outcome.REJECTED, ["another version became champion twice while this run worked"])


async def before_failing(run: Run, ended: Ended, tools: Tools) -> Ended:
    """Asks once more before a failure is told: what failed may have come after the proposal."""
    if ended.outcome is not Outcome.FAILED:
        return ended
    try:
        before = await tools.registry.registered(run.model_name, run.run_id)
    except (PeerAway, PeerRefused):
        return ended
    return ended if before is None else _resumed(before)


async def _attempt(run: Run, tools: Tools, fencing_token: int) -> Ended:
    before = await tools.registry.registered(run.model_name, run.run_id)
    if before is not None:
        return _resumed(before)
    bench = await _set_up(run, tools)
    candidates = [await _try(window, bench, tools) for window in bench.split.training]
    return await _propose_best(run, bench, candidates, tools, fencing_token)


def _resumed(registered: Registered) -> Ended:
    """The run had registered and was cut off before it could say so."""
    return Ended(
        registered.outcome,
        registered.reasons,
        champion_version=registered.evidence.champion_version,
        candidate_version=registered.version,
        data_set_sha256=registered.lineage.data_set_sha256,
        holdout_rows=registered.evidence.holdout_rows,
        fit_count=registered.evidence.candidate_count,
    )


async def _set_up(run: Run, tools: Tools) -> _Bench:
    champion = await tools.registry.champion(run.model_name)
    longest = max(tools.windows.lengths(run.reference_rows).values())
    newest = longest + holdout_length(run.reference_rows, run.reference_rows)
    data = _unseen_or_old(
        await tools.ledger.cut(run.model_name, run.cut_known_at_us, newest),
        champion.lineage.trained_to_us,
    )
    parts = split(
        data.table[reference.KNOWN_AT].to_numpy(),
        champion_trained_to_us=champion.lineage.trained_to_us,
        reference_rows=run.reference_rows,
        windows=tools.windows,
    )
    start, end = parts.holdout
    holdout = data.table.slice(start, end - start)
    losses = await _champion_losses(run, champion, holdout, tools)
    return _Bench(champion, data, parts, losses)


async def _champion_losses(run: Run, champion: Champion, holdout: pa.Table, tools: Tools) -> Floats:
    """CannotCompare where the champion does not run on the rows, with what to do about it."""
    inputs = [spec.name for spec in champion.signature.inputs]
    missing = [name for name in inputs if name not in holdout.column_names]
    if missing:
        raise CannotCompare(
            f"the ledger's rows of {run.model_name} lack {', '.join(map(repr, missing))}, which "
            f"version {champion.version} takes: import history that has them, or push a version "
            "without them"
        )
    try:
        said = await tools.workshop.evaluate(champion.model, champion.signature, holdout)
    except ValueError as error:
        raise CannotCompare(
            f"version {champion.version} of {run.model_name} does not run on the hold-out "
            f"({error}): push a version that runs on the rows that are served"
        ) from error
    return schema.log_loss(champion.signature.task, said, holdout[reference.TRUTH].to_numpy())


def _unseen_or_old(data: DataSet, champion_trained_to_us: int) -> DataSet:
    """Without rows that can neither judge the champion nor stand among what is older."""
    if _FIRST_KNOWN_AT not in data.table.column_names:
        return data
    known_at, first_known_at = (
        data.table[name].to_numpy() for name in (reference.KNOWN_AT, _FIRST_KNOWN_AT)
    )
    kept = without_seen(known_at, first_known_at, champion_trained_to_us)
    if len(kept) == len(known_at):
        return data
    return DataSet(data.table.take(pa.array(kept)).combine_chunks(), data.sha256)


async def _try(window: str, bench: _Bench, tools: Tools) -> _Candidate:
    start, end = bench.split.training[window]
    rows = bench.data.table.slice(start, end - start)
    lineage = bench.champion.lineage
    recipe = lineage.recipe or _DEFAULT_RECIPE
    job = Job(
        recipe,
        lineage.recipe_parameters or "{}",
        tools.seed,
        candidate_signature(bench.champion.signature),
        _features(rows),
        rows[reference.TRUTH].to_numpy(),
        _features(bench.holdout),
    )
    try:
        trained = await tools.workshop.train(job)
        said = await tools.workshop.evaluate(trained.model, job.signature, bench.holdout)
    except (WorkerDied, ValueError) as error:
        return _Candidate(Tried(recipe, window, end - start, error=str(error)))
    losses = schema.log_loss(job.signature.task, said, bench.truths)
    gain = paired_gain(bench.losses, losses)
    tried = Tried(recipe, window, end - start, gain, trained.fit_seconds)
    return _Candidate(tried, trained, losses)


def candidate_signature(champion: Signature) -> Signature:
    """A candidate takes the same inputs and gives the score output alone."""
    signature = Signature()
    signature.CopyFrom(champion)
    del signature.outputs[:]
    width = max(1, len(champion.classes))
    signature.outputs.append(
        TensorSpec(name=champion.score_output, datatype="FP32", shape=[-1, width])
    )
    return signature


def _features(rows: pa.Table) -> pa.Table:
    return rows.select(reference.feature_names(rows))


async def _propose_best(
    run: Run, bench: _Bench, candidates: Sequence[_Candidate], tools: Tools, fencing_token: int
) -> Ended:
    count = len(candidates)
    place = choose(bench.losses, [each.losses for each in candidates])
    told = Ended(
        Outcome.NO_CANDIDATE,
        champion_version=bench.champion.version,
        data_set_sha256=bench.data.sha256,
        holdout_rows=bench.split.holdout_rows,
        candidates=[each.tried for each in candidates],
        fit_count=count,
    )
    if place is None:
        return _with(told, Outcome.FAILED, ["no candidate could be trained"])
    chosen = candidates[place]
    bound = chosen.tried.gain.lower_bound(count) if chosen.tried.gain else float("-inf")
    if bound <= 0:
        return _with(told, Outcome.NO_CANDIDATE, [_not_better(chosen.tried, bound, count)])
    if await tools.registry.etag(run.model_name) != bench.champion.etag:
        raise StaleChampion(f"{run.model_name} changed during run {run.run_id}")
    proposal = await _proposal(run, bench, chosen, count, tools, fencing_token)
    registered = await tools.registry.register(proposal)
    return _with(told, registered.outcome, registered.reasons, registered.version)


def _with(
    told: Ended, outcome: Outcome, reasons: Sequence[str], version: int | None = None
) -> Ended:
    return Ended(
        outcome,
        reasons,
        told.champion_version,
        version,
        told.data_set_sha256,
        told.holdout_rows,
        told.candidates,
        told.fit_count,
    )


def _not_better(tried: Tried, bound: float, count: int) -> str:
    mean = tried.gain.mean if tried.gain else float("nan")
    return (
        f"no candidate is better beyond doubt: the best of {count}, {tried.window!r}, gains "
        f"{mean:.5f} per row, but only {bound:.5f} are sure"
    )


async def _proposal(
    run: Run,
    bench: _Bench,
    chosen: _Candidate,
    count: int,
    tools: Tools,
    fencing_token: int,
) -> Proposal:
    if chosen.trained is None or chosen.losses is None or chosen.tried.gain is None:
        raise CannotRun("the best candidate is not there")
    model = chosen.trained.model
    signature = candidate_signature(bench.champion.signature)
    known_at = bench.data.table[reference.KNOWN_AT].to_numpy()
    trained_to = int(known_at[bench.split.training[chosen.tried.window][1] - 1])
    start, end = bench.split.holdout
    return Proposal(
        model_name=run.model_name,
        model=model,
        reference=await _reference(run, bench, model, signature, tools),
        signature=signature,
        lineage=Lineage(
            recipe=chosen.tried.recipe,
            recipe_parameters=bench.champion.lineage.recipe_parameters or "{}",
            data_set_sha256=bench.data.sha256,
            training_rows=chosen.tried.training_rows,
            trained_to_us=trained_to,
            parent_version=bench.champion.version,
            cause=_cause(run, chosen.tried),
            alert_id=run.alert_id,
            run_id=run.run_id,
        ),
        evidence=Evidence(
            candidate_sha256=hashlib.sha256(model).hexdigest(),
            champion_sha256=bench.champion.sha256,
            champion_version=bench.champion.version,
            champion_etag=bench.champion.etag,
            holdout_sha256=_content_sha256(bench.holdout),
            holdout_rows=end - start,
            holdout_from_us=int(known_at[start]),
            holdout_to_us=int(known_at[end - 1]),
            mean_gain=chosen.tried.gain.mean,
            gain_deviation=chosen.tried.gain.deviation,
            candidate_count=count,
            candidate_loss=float(chosen.losses.mean()),
            champion_loss=float(bench.losses.mean()),
        ),
        occurred_at_us=run.watermark_us,
        fencing_token=fencing_token,
    )


async def _reference(
    run: Run, bench: _Bench, model: bytes, signature: Signature, tools: Tools
) -> bytes:
    """The newest W rows, of which the hold-out's losses are honest, as the candidate sees them."""
    begin, end = bench.split.holdout
    start = max(0, end - max(run.reference_rows, end - begin))
    rows = bench.data.table.slice(start, end - start)
    said = await tools.workshop.evaluate(model, signature, rows)
    scores, decisions = schema.judge(signature, said)
    truths = rows[reference.TRUTH].to_numpy()
    verdicts = reference.Verdicts(
        scores,
        decisions,
        truths,
        schema.loss(signature.task, decisions, truths),
        np.arange(start, end) >= begin,
    )
    times = [name for name in rows.column_names if name.startswith(reference.RESERVED_PREFIX)]
    return reference.build(
        rows.drop_columns(times),
        rows[reference.EVENT_TIME].to_numpy(),
        rows[reference.KNOWN_AT].to_numpy(),
        verdicts,
    )


def _content_sha256(rows: pa.Table) -> str:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _cause(run: Run, tried: Tried) -> str:
    why = {
        "alert": "a performance alert opened",
        "follow_up": f"follow-up {run.follow_up_number} of a performance alert that stays open",
        "truth_volume": "much new truth since the last run",
        "schedule": "the schedule said so",
        "request": "somebody asked for it",
    }[run.trigger]
    return f"{why}; trained on the window {tried.window!r}"
