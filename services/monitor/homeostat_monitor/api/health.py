"""RPCs about a model: how it does, and which changes its watch would see."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc

from homeostat.events.v1 import alert_pb2
from homeostat.monitor.v1 import monitor_pb2 as pb
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceServicer
from homeostat_kit.postgres import Pool
from homeostat_monitor.app.taking import SEGMENT_TALLY
from homeostat_monitor.domain.errors import CorruptState, UnusableReference
from homeostat_monitor.domain.profile import OF_A_SEGMENT
from homeostat_monitor.faults import Fault, fault_of
from homeostat_monitor.health import estimate_of, labels_of, losses_of, metrics_of
from homeostat_monitor.ports import KnownVersion, Standing, StateKey
from homeostat_monitor.powers import power_of
from homeostat_monitor.store.transaction import Reader
from homeostat_monitor.versions import RegistryAway, Versions

_WITHIN_EVENTS = 2_000
_MOST_WITHIN_EVENTS = 10_000_000
# Tallies worth a sentence, and how it begins.
_REMARKED = {
    "late_rows": "predictions came after their window was closed and were not judged",
    "late_losses": "truths came after their watermark and were not fed",
    "corrections": "corrections were not fed: only the first truth is",
    "superseded_rows": "predictions came after another version took over",
    "superseded_losses": "truths came after another version took over",
    "skipped_rows": "predictions were in spans too thin to judge",
    "losses_not_finite": "losses were not finite",
    "scores_not_finite": (
        "scores were no finite numbers: they are in no figure; look at what the model answers"
    ),
}

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
if TYPE_CHECKING:  # generic in the stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Asked, Answered]


class HealthApi(MonitorServiceServicer):
    """Its part of the contract; whoever inherits gives what it asks."""

    _pool: Pool
    _reader: Reader
    _versions: Versions

    async def GetModelHealth(  # noqa: N802
        self,
        request: pb.GetModelHealthRequest,
        context: "Context[pb.GetModelHealthRequest, pb.GetModelHealthResponse]",
    ) -> pb.GetModelHealthResponse:
        """How the version in service does; NOT_FOUND for a model that nobody has heard of."""
        name = request.model_name
        standing = await self._reader.champion(name)
        response = pb.GetModelHealthResponse(
            model_name=name, open_alerts=await self._reader.open_alert_count(name)
        )
        fault = await fault_of(self._pool, name)
        if fault is not None:
            response.remarks.append(_failing(fault))
        if standing is not None:
            await self._fill(response, standing)
        return response

    async def GetPower(  # noqa: N802
        self,
        request: pb.GetPowerRequest,
        context: "Context[pb.GetPowerRequest, pb.GetPowerResponse]",
    ) -> pb.GetPowerResponse:
        """What the budget buys; NOT_FOUND, or FAILED_PRECONDITION without a reference."""
        within = request.within_events if request.HasField("within_events") else _WITHIN_EVENTS
        standing = await self._reader.champion(request.model_name)
        if standing is None:
            raise UnusableReference(f"no version of {request.model_name} was seen yet")
        known = (await self._versions.newest(standing.subject)).known
        reference = await self._versions.reference(standing.subject)
        within = min(max(within, 1), _MOST_WITHIN_EVENTS)
        return await asyncio.to_thread(power_of, known, reference, within)

    async def _fill(self, response: pb.GetModelHealthResponse, standing: Standing) -> None:
        tallies = await self._reader.tallies(standing.subject)
        response.version = standing.subject.version
        response.predictions = tallies.get("predictions", 0)
        response.windows = standing.windows_judged
        response.window_seconds = (standing.window_us or 0) / 1e6
        response.remarks.extend(await self._reader.remarks(standing.subject))
        response.remarks.extend(
            f"{tallies[name]} {text}" for name, text in _REMARKED.items() if tallies.get(name)
        )
        response.remarks.extend(map(_degraded, await self._reader.rebuilds(standing.subject)))
        states = await self._reader.states(standing.subject)
        unread = _fill_losses(response, states)
        if unread is not None:
            response.remarks.append(unread)
        try:
            known = (await self._versions.newest(standing.subject)).known
        except RegistryAway as error:
            response.remarks.append(f"mode and metrics are not told: {error}")
            return
        in_force = in_force_of(response.remarks, known)
        del response.remarks[:]
        response.remarks.extend(in_force)
        _fill_known(response, known, states)
        for each in response.segments:
            each.predictions = tallies.get(f"{SEGMENT_TALLY}{each.name}", 0)


def in_force_of(remarks: Iterable[str], known: KnownVersion) -> list[str]:
    """Without those on segments that another policy or an older reference had."""
    return [each for each in remarks if not each.startswith(OF_A_SEGMENT) or each in known.remarks]


def _failing(fault: Fault) -> str:
    since = datetime.fromtimestamp(fault.since_us / 1e6, UTC)
    return (
        f"degraded: judging fails with {fault.error} since {since:%Y-%m-%d %H:%M:%S} UTC "
        f"({fault.times} times) and is tried again at least once a minute; nothing is lost; "
        "cure: the monitor's log (judging_failed) has the cause"
    )


def _degraded(key: StateKey) -> str:
    where = f" of the segment {key.segment}" if key.segment else ""
    return (
        f"degraded: the detector {key.name}{where} began anew, its state could not be read; "
        "the past will rebuild it once the ledger (HOMEOSTAT_MONITOR_LEDGER_ADDRESS) gives it"
    )


def _fill_losses(
    message: pb.GetModelHealthResponse | pb.SegmentHealth,
    states: Mapping[StateKey, bytes],
    segment: str = "",
) -> str | None:
    """The losses of all rows or of a segment; what is to be remarked if they cannot be read."""
    try:
        losses = losses_of(states, segment)
    except CorruptState as error:
        return str(error)
    if losses is not None:
        message.losses = losses.losses
        message.mean_loss = losses.mean
        message.reference_loss = losses.reference
    return None


def _fill_known(
    response: pb.GetModelHealthResponse,
    known: KnownVersion,
    states: Mapping[StateKey, bytes],
) -> None:
    response.policy_revision = known.policy.revision
    if known.policy.fault:
        response.remarks.append(known.policy.fault)
    if known.profile is not None:
        response.mode = alert_pb2.DetectionMode.Value(f"DETECTION_MODE_{known.profile.mode.name}")
        response.mode_reason = known.profile.mode_reason
        if not response.window_seconds:
            # How long the first one takes, before it was judged.
            response.window_seconds = known.profile.length_us / 1e6
    for each in metrics_of(states, known):
        # The others are of all truths since the version began, under the same names.
        if each.span == "newest":
            response.metrics.add(
                name=each.name,
                value=each.value,
                low=each.low,
                high=each.high,
                reference_value=each.reference,
                row_count=each.rows,
            )
    _fill_estimate(response, known, states)
    for segment in known.policy.segments:
        message = response.segments.add(name=segment.name, expression=segment.expression)
        unread = _fill_losses(message, states, segment.name)
        if unread is not None:
            response.remarks.append(f"segment {segment.name}: {unread}")


def _fill_estimate(
    response: pb.GetModelHealthResponse,
    known: KnownVersion,
    states: Mapping[StateKey, bytes],
) -> None:
    estimate = estimate_of(states, known)
    if estimate is not None and estimate.absent_because is not None:
        response.remarks.append(estimate.absent_because)
    found = estimate.latest if estimate is not None else None
    if found is not None:
        response.estimated_loss.CopyFrom(
            pb.Metric(
                name="estimated_loss",
                value=found.loss,
                low=found.low,
                high=found.high,
                reference_value=found.reference,
                row_count=found.rows,
            )
        )
    labels = labels_of(states, known)
    if labels is None:
        return
    if labels.covered is not None:
        response.label_coverage = labels.covered
    if labels.delays is not None:
        response.label_delay_seconds, response.label_delay_reference_seconds = labels.delays
