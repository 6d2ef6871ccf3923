"""Registers another form of the champion as a candidate: the gate decides, as for any other."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from homeostat import reference, schema
from homeostat.advise.figures import Outcome, Timing
from homeostat.advise.forms import Form
from homeostat.advise.report import Report
from homeostat.advise.sources import Champion
from homeostat.advise.subject import CannotAdvise
from homeostat.errors import HomeostatError
from homeostat.model_file import ModelFile
from homeostat.registry.v1.registry_pb2 import (
    Equivalence,
    Lineage,
    RegisterVersionHeader,
    RegisterVersionRequest,
    Signature,
    Version,
)

if TYPE_CHECKING:  # exists in the stubs only
    from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub

_CHUNK_BYTES = 1024 * 1024
_SECONDS = 300.0
_METHODS = {
    Form.INT8_STATIC: "int8 quantisation (calibrated)",
    Form.INT8_BY_ROW: "int8 quantisation (row by row)",
    Form.INT8_DYNAMIC: "int8 quantisation (range per run)",
    Form.FLOAT16: "float16 conversion",
}


class NotApplied(HomeostatError):
    """Nothing was registered; the message says why."""


def require_fit(report: Report, name: str) -> Outcome:
    """The outcome to apply; NotApplied where it is unknown, unequal, slower, or no file."""
    outcome = report.outcome(name)
    if outcome is None:
        known = ", ".join(each.variant.name for each in report.outcomes if each.variant.is_file)
        raise NotApplied(f"nothing here is called {name!r}; what can be applied: {known}")
    refusal = report.why_not_applied(outcome)
    if refusal:
        raise NotApplied(f"{name} was not registered: {refusal}")
    return outcome


async def apply(
    registry: "RegistryServiceAsyncStub",
    report: Report,
    champion: Champion,
    outcome: Outcome,
    content: bytes,
    *,
    author: str,
) -> Version:
    """The version that it became, in whatever stage; grpc.aio.AioRpcError where it is refused."""
    profile = rescored(champion.profile, content, champion.version.signature)
    header = header_of(report, champion, outcome, content, profile, author=author)
    answer = await registry.RegisterVersion(_parts(header, content, profile), timeout=_SECONDS)
    return answer.version


def header_of(
    report: Report,
    champion: Champion,
    outcome: Outcome,
    content: bytes,
    profile: bytes,
    *,
    author: str,
) -> RegisterVersionHeader:
    """What the registry is told: the parent's signature and lineage, and how equal it is."""
    parent = champion.version
    method = _METHODS[outcome.variant.form]
    lineage = Lineage()
    lineage.CopyFrom(parent.lineage)
    lineage.parent_version = parent.version
    lineage.cause = f"{method} of version {parent.version}"
    lineage.alert_id = lineage.run_id = ""
    return RegisterVersionHeader(
        model_name=parent.model_name,
        signature=parent.signature,
        lineage=lineage,
        model_sha256=hashlib.sha256(content).hexdigest(),
        model_bytes=len(content),
        reference_sha256=hashlib.sha256(profile).hexdigest() if profile else "",
        reference_bytes=len(profile),
        author=author,
        equivalence=_equivalence(report, parent, outcome, method),
    )


def _equivalence(report: Report, parent: Version, outcome: Outcome, method: str) -> Equivalence:
    equality, timing = outcome.equality, outcome.at(report.serving_rows)
    if equality is None or timing is None:
        raise CannotAdvise(f"{outcome.variant.name} was not measured")
    return Equivalence(
        parent_sha256=parent.model_sha256,
        rows_sha256=report.rows_sha256,
        row_count=equality.row_count,
        equal_count=equality.equal_count,
        tolerated_share=report.tolerance.share,
        value_tolerance=equality.value_tolerance,
        max_score_difference=equality.max_score_difference,
        speed_up=timing.speed_up,
        method=f"{method}, {_spoken(timing)}",
        machine=report.machine.short,
    )


def _spoken(timing: Timing) -> str:
    return f"measured with {timing.rows} rows at once"


def rescored(profile: bytes, content: bytes, signature: Signature) -> bytes:
    """The parent's reference profile with what the new form says of its rows.

    Honest losses stay where the decision stays: they may come from folds that are not here. Empty
    where the parent has no profile.
    """
    if not profile:
        return b""
    table = reference.read(profile)
    said = ModelFile(content).scores(_inputs(table), signature)
    scores, decisions = schema.judge(signature, said)
    truths = _floats(table, reference.TRUTH)
    old_losses, old_decisions = _floats(table, reference.LOSS), _floats(table, reference.DECISION)
    is_holdout = np.asarray(table[reference.IS_HOLDOUT].to_numpy(zero_copy_only=False), dtype=bool)
    losses = schema.loss(signature.task, decisions, truths)
    stays = is_holdout & ((decisions == old_decisions) | (not signature.classes))
    return reference.build(
        _inputs(table, with_contexts=True),
        table[reference.EVENT_TIME].to_numpy(),
        table[reference.KNOWN_AT].to_numpy(),
        reference.Verdicts(
            scores, decisions, truths, np.where(stays, old_losses, losses), is_holdout
        ),
    )


def _inputs(table: pa.Table, *, with_contexts: bool = False) -> pa.Table:
    kept = [
        name
        for name in table.column_names
        if not name.startswith(reference.RESERVED_PREFIX)
        and (with_contexts or not name.startswith(reference.CONTEXT_PREFIX))
    ]
    return table.select(kept)


def _floats(table: pa.Table, name: str) -> reference.Floats:
    return np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64)


async def _parts(
    header: RegisterVersionHeader, content: bytes, profile: bytes
) -> AsyncIterator[RegisterVersionRequest]:
    yield RegisterVersionRequest(header=header)
    for chunk in _chunks(content):
        yield RegisterVersionRequest(model_chunk=chunk)
    for chunk in _chunks(profile):
        yield RegisterVersionRequest(reference_chunk=chunk)


def _chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), _CHUNK_BYTES):
        yield content[start : start + _CHUNK_BYTES]
