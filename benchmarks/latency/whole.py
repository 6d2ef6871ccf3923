"""The whole stack as a user runs it, under load, with one thing after the other going wrong."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from benchmarks.latency.load import Load
from benchmarks.latency.marks import Marks, Seen, read_marks, reading_alerts
from benchmarks.latency.world import FAULTS, Fault, named, prepared
from tests.support.waiting import eventually

from homeostat.client import Client
from homeostat.events.v1.alert_pb2 import ALERT_STATE_OPENED, AlertRule
from homeostat.push import send
from homeostat_kit.kafka import Bus
from homeostat_local.memory import tree
from homeostat_local.stack import Stack, running_stack

MODELS = 6
_KNOWN_SECONDS = 120.0
# A window closes when the server's clock is five seconds beyond it; alerts are waited for so long.
_LEAVE_SECONDS = 15.0
# The rate is held if so much of it was.
_HELD = 0.98


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seconds: float = 60.0
    rows_per_second: int = 20_000
    rows_per_request: int = 512
    models: int = MODELS
    clients: int = 4
    history_rows: int = 30_000
    warm_up_seconds: float = 10.0
    seed: int = 1

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return [f"model-{number}" for number in range(self.models)]


@dataclass(slots=True)
class Measured:
    """What a run saw."""

    plan: Plan
    # Seconds since 1970.
    begun_at: float = 0.0
    seconds: float = 0.0
    rows: int = 0
    load: Load | None = None
    # When which fault began at which model.
    begun: dict[tuple[str, "AlertRule.ValueType"], float] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    marks: Marks = field(default_factory=Marks)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    machine_cpu_seconds: float = 0.0
    memory_mib: dict[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0

    def report(self) -> dict[str, Any]:
        """All figures; latencies in seconds, of every alert that opened since the warm-up."""
        every = [each for each in self.seen if each.alert.state == ALERT_STATE_OPENED]
        opened = [each for each in every if each.at >= self.begun_at]
        latencies = [(self._latency(each), each) for each in opened]
        known = [(seconds, each) for seconds, each in latencies if seconds is not None]
        told = {(each.alert.model_name, each.alert.rule) for each in opened}
        missed = [key for key in self.begun if key not in told]
        wanted = set(self.begun)
        rate = self.rows / max(self.seconds, 1e-9)
        load = self.load
        return {
            "wanted_rows_per_second": self.plan.rows_per_second,
            "rows_per_second": round(rate),
            "is_rate_reached": rate >= _HELD * self.plan.rows_per_second,
            "seconds": round(self.seconds, 1),
            "models": self.plan.models,
            "rows_per_request": self.plan.rows_per_request,
            "refused": dict(load.refused) if load else {},
            "answer_p50_p99": _quantiles(load.answer_seconds if load else [], 50, 99),
            "shifts": len(self.begun),
            "shifts_told": len(wanted & told),
            "missed": [f"{name}: {AlertRule.Name(rule)}" for name, rule in sorted(missed)],
            "alerts": len(opened),
            "alerts_in_warm_up": len(every) - len(opened),
            "alerts_by_rule": dict(Counter(AlertRule.Name(each.alert.rule) for each in opened)),
            "alerts_without_mark": len(opened) - len(known),
            "mark_to_alert_p50_p99_max": _quantiles([s for s, _ in known], 50, 99, 100),
            "slowest": [
                [round(seconds, 3), each.alert.model_name, AlertRule.Name(each.alert.rule)]
                for seconds, each in sorted(known, key=lambda pair: -pair[0])[:5]
            ],
            "cpu_seconds": {name: round(each, 1) for name, each in self.cpu_seconds.items()},
            "cores": round(sum(self.cpu_seconds.values()) / max(self.seconds, 1e-9), 2),
            "cores_of_others": round(self._cores_of_others(), 2),
            "machine_cores": psutil.cpu_count(),
            "memory_mib": {name: round(each) for name, each in self.memory_mib.items()},
            "peak_memory_mib": round(self.peak_mib),
        }

    def _cores_of_others(self) -> float:
        """What the machine did besides: figures are quiet ones only where that is next to none."""
        others = self.machine_cpu_seconds - sum(self.cpu_seconds.values())
        return max(0.0, others) / max(self.seconds, 1e-9)

    def _latency(self, seen: Seen) -> float | None:
        """From the last partition's mark that the alert names, as it was sent, until it was read:
        an alert names the first mark that closed its window."""
        sent_at = self.marks.reached_at(seen.alert.watermark_us)
        return None if sent_at is None else seen.at - sent_at


def _quantiles(values: Sequence[float], *percents: float) -> list[float]:
    return [round(float(each), 3) for each in np.percentile(values, percents)] if values else []


async def measure(plan: Plan) -> Measured:
    """Starts everything, pushes, warms up, loads, and looks."""
    measured = Measured(plan)
    async with AsyncExitStack() as parts:
        folder = Path(parts.enter_context(TemporaryDirectory()))
        stack = parts.enter_context(running_stack(folder / "stack"))
        await _push(stack, plan, folder)
        addresses = stack.addresses
        clients = [
            await parts.enter_async_context(Client(addresses["inference"]))
            for _ in range(plan.clients)
        ]
        async with asyncio.timeout(_KNOWN_SECONDS):
            for name in plan.names:
                while not await clients[0].is_model_ready(name):  # noqa: ASYNC110 - asked afar
                    await asyncio.sleep(0.05)
        bus = await parts.enter_async_context(Bus(addresses["kafka"], client_id="bench"))
        measured.seen = await parts.enter_async_context(reading_alerts(bus))
        await _under_load(stack, clients, measured)
        measured.marks = await read_marks(addresses["kafka"])
        measured.peak_mib = stack.peak_pss_mb
    return measured


async def _push(stack: Stack, plan: Plan, folder: Path) -> None:
    """The same model under several names, each with a history of its own."""
    ready = prepared(
        folder / "model",
        rows=plan.history_rows,
        rows_per_second=plan.rows_per_second / plan.models,
        seed=plan.seed,
    )
    addresses = stack.addresses
    for name in plan.names:
        await send(
            named(ready, name),
            registry_address=addresses["registry"],
            ledger_address=addresses["ledger"],
        )


async def _under_load(stack: Stack, clients: Sequence[Client], measured: Measured) -> None:
    plan = measured.plan
    load = Load(
        plan.names, plan.rows_per_second, plan.rows_per_request, np.random.default_rng(plan.seed)
    )
    measured.load = load
    async with _running(load, clients):
        await eventually(
            lambda: stack.log("monitor").count("version_known") >= plan.models,
            seconds=_KNOWN_SECONDS,
        )
        await asyncio.sleep(plan.warm_up_seconds)
        load.answer_seconds.clear()
        measured.begun_at = time.time()
        before, rows, begun = _cpu_seconds(stack), load.answered_rows, time.perf_counter()
        machine = _machine_cpu_seconds()
        await _go_wrong(load, measured)
        await asyncio.sleep(max(0.0, plan.seconds - (time.perf_counter() - begun)))
        measured.seconds = time.perf_counter() - begun
        measured.rows = load.answered_rows - rows
        after = _cpu_seconds(stack)
        measured.machine_cpu_seconds = _machine_cpu_seconds() - machine
        measured.cpu_seconds = {name: each - before.get(name, 0.0) for name, each in after.items()}
        measured.memory_mib = stack.pss_by_process()
        # The load goes on until the last window's alert is out, or would have to be.
        await _until_told(measured)


@asynccontextmanager
async def _running(load: Load, clients: Sequence[Client]) -> Any:
    stop = asyncio.Event()
    task = asyncio.create_task(load.run(clients, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def _go_wrong(load: Load, measured: Measured) -> None:
    """One fault after the other, each at one model after the other, evenly over the time."""
    begun = time.perf_counter()
    coming = list(_coming(measured.plan))
    for number, (name, fault) in enumerate(coming):
        due = begun + number * measured.plan.seconds / len(coming)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        load.faults.setdefault(name, []).append(fault)
        measured.begun[name, fault.rule] = time.time()


def _coming(plan: Plan) -> Iterator[tuple[str, Fault]]:
    for fault in FAULTS:
        for name in plan.names:
            yield name, fault


async def _until_told(measured: Measured) -> None:
    until = time.perf_counter() + _LEAVE_SECONDS
    while time.perf_counter() < until:
        told = {(each.alert.model_name, each.alert.rule) for each in measured.seen}
        if set(measured.begun) <= told:
            return
        await asyncio.sleep(0.2)


def _cpu_seconds(stack: Stack) -> dict[str, float]:
    """Of each part with its children; "client" is this process: requests, answers, watching."""
    endpoints = stack.endpoints
    used = {name: _of_tree(record.pid) for name, record in endpoints.processes()}
    supervisor = endpoints.supervisor.pid
    used["supervisor"] = sum(psutil.Process(supervisor).cpu_times()[:2]) if supervisor else 0.0
    used["client"] = sum(psutil.Process().cpu_times()[:2])
    return used


def _machine_cpu_seconds() -> float:
    """Of all processes of the machine."""
    used = psutil.cpu_times()
    return used.user + used.system + used.nice + used.irq + used.softirq


def _of_tree(pid: int | None) -> float:
    used = 0.0
    for each in tree(pid) if pid is not None else ():
        try:
            used += sum(psutil.Process(each).cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return used


def told(report: dict[str, Any]) -> Iterator[str]:
    """The report as a table for people."""
    wanted, rate = report["wanted_rows_per_second"], report["rows_per_second"]
    if not report["is_rate_reached"]:
        yield f"THE RATE WAS NOT REACHED: {rate:,} of {wanted:,} predictions/s"
    yield f"{rate:,} of {wanted:,} predictions/s for {report['seconds']} s"
    yield f"{report['models']} models, {report['rows_per_request']} rows per request"
    yield f"answers: p50, p99 {report['answer_p50_p99']} s; refused {report['refused'] or 'none'}"
    yield f"shifts {report['shifts']}, told {report['shifts_told']}, missed {report['missed'] or 0}"
    rules = {each.removeprefix("ALERT_RULE_"): n for each, n in report["alerts_by_rule"].items()}
    yield f"alerts opened {report['alerts']}: {rules}; in the warm-up {report['alerts_in_warm_up']}"
    yield f"mark to alert, p50, p99, max: {report['mark_to_alert_p50_p99_max']} s"
    yield f"slowest: {report['slowest']}"
    yield f"{'process':>12} {'CPU s':>7} {'cores':>6} {'MiB':>6}"
    for name, used in sorted(report["cpu_seconds"].items(), key=lambda each: -each[1]):
        memory = report["memory_mib"].get(name, "")
        yield f"{name:>12} {used:7.1f} {used / report['seconds']:6.2f} {memory:>6}"
    client = report["cpu_seconds"]["client"] / max(sum(report["cpu_seconds"].values()), 1e-9)
    yield (
        f"{report['cores']} of {report['machine_cores']} cores, {client:.0%} of it the client's; "
        f"others on the machine took {report['cores_of_others']} cores"
    )
    yield f"peak memory of the stack {report['peak_memory_mib']} MiB"
