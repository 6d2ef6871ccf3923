"""Figures of our server alone: swaps, memory, overload, fairness, shadows."""

import contextlib
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np
import psutil
from benchmarks.serving import ours
from benchmarks.serving.compare import Bench
from benchmarks.serving.models import LOGISTIC, TREES, BenchModel, one_request
from benchmarks.serving.ours import Ours
from benchmarks.serving.processes import ask

from homeostat.events.v1.serving_pb2 import Serving
from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse

_SWAP_SECONDS = 20.0
# A version every so often: some 40 s of load for 200 of them.
_SWAP_INTERVAL_SECONDS = 0.2
_DEADLINE_MS = 250
_MIB = 1024 * 1024


def swaps(bench: Bench, server: str, *, count: int = 200, connections: int = 16) -> dict[str, Any]:
    """Versions swapped under load, one after the other; each is another file."""
    model = bench.models[LOGISTIC]
    with ours.a_server(server, bench.models) as running:
        bodies = bench.bodies(LOGISTIC)
        bench.check(server, running.port, bodies)
        calm = bench.load.run(running.port, bodies, connections=connections, seconds=10)
        taken = []
        version = _version_served(running.port, model)
        with bench.load.beside(
            running.port, bodies, connections=connections, seconds=600, warm_up=0
        ) as during:
            for number in range(2, count + 2):
                taken.append(_swap(running, model, number, version))
                time.sleep(max(0.0, _SWAP_INTERVAL_SECONDS - taken[-1]))
        after = bench.load.run(running.port, bodies, connections=connections, seconds=5)
    p99 = (calm["p99_us"] + after["p99_us"]) / 2
    return {
        "swaps": count,
        "seconds_between_them": _SWAP_INTERVAL_SECONDS,
        "failed_requests": during["failed"],
        "requests": during["ok"],
        "answers_checked": during["checked"],
        "p99_us_calm_before": calm["p99_us"],
        "p99_us_calm_after": after["p99_us"],
        "p99_us_during": during["p99_us"],
        "max_us_during": during["max_us"],
        "p99_ratio": during["p99_us"] / p99,
        "requests_per_second_calm": calm["requests_per_second"],
        "requests_per_second_during": during["requests_per_second"],
        "median_seconds_of_a_swap": median(taken),
    }


def _swap(running: Ours, model: BenchModel, number: int, version: Callable[[], int]) -> float:
    """Seconds from the registry's word to the first answer by the new version."""
    running.registry.add(model.name, number, model.variant(number), model.signature())
    change = running.registry.promote(model.name, number)
    begun = time.monotonic()
    running.registry.tell(running.broker.address, change)
    while version() != number:
        if time.monotonic() - begun > _SWAP_SECONDS:
            raise AssertionError(f"version {number} does not answer:\n{running.running.tail()}")
        time.sleep(0.01)
    return time.monotonic() - begun


def _version_served(port: int, model: BenchModel) -> Callable[[], int]:
    call = ask(port, one_request(model, 0, 1, has_ids=False))
    return lambda: int(ModelInferResponse.FromString(call()).model_version or 0)


def memory(bench: Bench, server: str, *, requests: int = 1_000_000) -> dict[str, Any]:
    """Memory of every process with three small models, and its slope over many requests."""
    models = dict(bench.models)
    third = models[LOGISTIC]
    models["third"] = BenchModel("third", third.variant(3), third.rows, third.labels, third.scores)
    step = max(1, requests // 50)
    samples: dict[int, list[tuple[int, int]]] = {}
    with ours.a_server(server, models) as running:
        for name in models:
            bench.models = models
            bench.load.once(running.port, bench.bodies(name))
        roles, resting = _roles(running), _memory_of(running)
        bodies, done = bench.bodies(TREES), 0
        while done < requests:
            result = bench.load.run(
                running.port, bodies, connections=16, seconds=600, warm_up=0, requests=step
            )
            done += int(result["ok"])
            for pid, used in _rss(running).items():
                samples.setdefault(pid, []).append((done, used))
        loaded = _memory_of(running)
    slopes = {f"slope of {roles.get(pid, pid)}": slope(each) for pid, each in samples.items()}
    return {"requests": done, **resting, **{f"after: {k}": v for k, v in loaded.items()}, **slopes}


def _rss(running: Ours) -> dict[int, int]:
    found = {}
    for each in running.running.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            found[each.pid] = each.memory_info().rss
    return found


def _memory_of(running: Ours) -> dict[str, Any]:
    """RSS, PSS and USS in MiB of each process."""
    found = {}
    for pid, role in _roles(running).items():
        with contextlib.suppress(psutil.NoSuchProcess):
            full = psutil.Process(pid).memory_full_info()
            parts = {"rss": full.rss, "pss": full.pss, "uss": full.uss}
            found[role] = {name: round(value / _MIB, 1) for name, value in parts.items()}
    return found


def _roles(running: Ours) -> dict[int, str]:
    """What each process is: the one that was started supervises, one with one thread only forks."""
    found, workers = {}, 0
    for each in running.running.family():
        if each.pid == running.running.process.pid:
            found[each.pid] = "keeper"
        elif each.num_threads() == 1:
            found[each.pid] = "nursery"
        else:
            found[each.pid] = f"worker {workers}"
            workers += 1
    return found


def slope(samples: list[tuple[int, int]]) -> dict[str, float]:
    """Least squares over the second half: MiB per million requests, and its standard error."""
    late = np.array(samples[len(samples) // 2 :], float)
    if len(late) < 4:
        return {}
    x, y = late[:, 0] / 1e6, late[:, 1] / _MIB
    away = x - x.mean()
    inclination = float((away * y).sum() / (away**2).sum())
    rest = y - y.mean() - inclination * away
    error = float(np.sqrt((rest**2).sum() / (len(late) - 2) / (away**2).sum()))
    return {"MiB_per_million": round(inclination, 3), "standard_error": round(error, 3)}


def overload(bench: Bench, server: str) -> dict[str, Any]:
    """64-row requests of trees, three times as many as it can answer, whatever it answers.

    Rows in requests of 64 make the model the limit, not the generator.
    """
    with ours.a_server(server, bench.models) as running:
        bodies = bench.bodies(TREES, 64)
        bench.check(server, running.port, bodies)
        peak = bench.load.run(running.port, bodies, connections=32, seconds=bench.seconds * 2)
        rate = peak["requests_per_second"]
        kept = {"connections": 32, "streams": 64, "deadline_ms": _DEADLINE_MS, "warm_up": 1}
        found: dict[str, Any] = {"peak_requests_per_second": rate, "deadline_ms": _DEADLINE_MS}
        for times in (0.7, 1.0, 2.0, 3.0):
            result = bench.load.run_some_fail(
                running.port, bodies, rate=rate * times, seconds=bench.seconds * 3, **kept
            )
            good = result["within_deadline"] / result["seconds"]
            found[f"{times} x capacity"] = {
                "goodput_per_second": good,
                "of_peak": good / rate,
                "p50_us": result["p50_us"],
                "p99_us": result["p99_us"],
                "statuses": str(result["statuses"]),
            }
    return found


def fairness(bench: Bench, server: str) -> dict[str, Any]:
    """A light load on one model, alone and beside a flood of another."""
    light = {"rate": 200, "connections": 4, "streams": 16, "deadline_ms": _DEADLINE_MS}
    with ours.a_server(server, bench.models) as running:
        flood, calm = bench.bodies(TREES, 64), bench.bodies(LOGISTIC)
        bench.check(server, running.port, flood)
        bench.check(server, running.port, calm)
        peak = bench.load.run(running.port, flood, connections=32, seconds=bench.seconds)
        alone = bench.load.run_some_fail(
            running.port, calm, seconds=bench.seconds * 4, warm_up=0.5, **light
        )
        options = {"connections": 32, "streams": 64, "deadline_ms": _DEADLINE_MS, "warm_up": 0}
        rate = peak["requests_per_second"] * 3
        with bench.load.beside(running.port, flood, rate=rate, seconds=300, **options) as heavy:
            time.sleep(1)
            beside = bench.load.run_some_fail(
                running.port, calm, seconds=bench.seconds * 4, warm_up=0.5, **light
            )
    return {
        "flood": f"trees, 64 rows, {rate:.0f}/s; answered in time {heavy['within_deadline']}"
        f" of {heavy['begun']}, statuses {heavy['statuses']}",
        "light load, requests/s": light["rate"],
        "alone": _short(alone),
        "beside_the_flood": _short(beside),
    }


def _short(result: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("requests_per_second", "p50_us", "p99_us", "failed", "ok")
    return {**{each: result[each] for each in wanted}, "statuses": str(result["statuses"])}


def shadow(bench: Bench, server: str) -> dict[str, Any]:
    """The champion at half its capacity, without and with a shadow that computes the same rows."""
    model = bench.models[TREES]
    bodies = bench.bodies(TREES)
    options = {"connections": 16, "streams": 16, "warm_up": 0.5}
    results: dict[str, list[dict[str, Any]]] = {"no shadow": [], "one shadow": []}
    with ours.a_server(server, bench.models) as running:
        bench.check(server, running.port, bodies)
        running.registry.add(model.name, 2, model.variant(2), model.signature())
        peak = bench.load.run(running.port, bodies, connections=16, seconds=bench.seconds)
        rate = peak["requests_per_second"] / 2
        for _ in range(bench.rounds):
            for name, versions in (("no shadow", []), ("one shadow", [2])):
                change = running.registry.set_serving(model.name, Serving(shadow_versions=versions))
                running.registry.tell(running.broker.address, change)
                time.sleep(3)  # a process starts or ends, loads and warms
                before = _processes(running)
                result = bench.load.run(
                    running.port, bodies, rate=rate, seconds=bench.seconds * 2, **options
                )
                results[name].append({**result, "processes": before})
    found = {name: _of_rounds(each) for name, each in results.items()}
    without, beside = found["no shadow"]["p99_us"], found["one shadow"]["p99_us"]
    return {"rate": rate, **found, "p99_ratio": beside / without}


def _processes(running: Ours) -> int:
    return len(running.running.family())


def _of_rounds(results: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("requests_per_second", "p50_us", "p99_us", "failed", "processes")
    return {name: median(float(each[name]) for each in results) for name in names}
