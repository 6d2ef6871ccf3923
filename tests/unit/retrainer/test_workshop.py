"""A worker's death is an error of its job, and the next job finds another worker."""

import asyncio
import os
import signal
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from homeostat_retrainer.app.ports import Job
from homeostat_retrainer.domain.errors import WorkerDied
from homeostat_retrainer.recipes import signature_for
from homeostat_retrainer.workshop.supervisor import JobFailed, Limits, Supervisor


def a_job(rows: int = 600, **changes: object) -> Job:
    random = np.random.default_rng(1)
    frame = pa.table({"x": random.normal(size=rows).astype(np.float32)})
    truth = (frame["x"].to_numpy() > 0).astype(float)
    given = {
        "recipe": "lightgbm",
        "parameters": "{}",
        "seed": 0,
        "signature": signature_for(frame, classes=["no", "yes"]),
        "frame": frame,
        "truth": truth,
        "holdout": frame.slice(0, 100),
    }
    return Job(**{**given, **changes})  # type: ignore[arg-type]


async def test_a_job_gives_a_model_that_runs() -> None:
    async with Supervisor(Limits()) as workshop:
        job = a_job()
        trained = await workshop.train(job)
        said = await workshop.evaluate(trained.model, job.signature, job.holdout)
    assert said.shape == (100, 2)
    assert ((said[:, 1] >= 0.5) == (job.truth[:100] == 1)).mean() > 0.9


async def test_a_killed_worker_is_that_jobs_error_and_is_replaced() -> None:
    async with Supervisor(Limits()) as workshop:
        await workshop.train(a_job())
        assert workshop.worker_id is not None
        os.kill(workshop.worker_id, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await workshop.train(a_job())
        assert (await workshop.train(a_job())).model
        assert workshop.deaths == 1


async def test_a_job_that_cannot_be_done_leaves_the_worker_alive() -> None:
    async with Supervisor(Limits()) as workshop:
        await workshop.train(a_job())
        before = workshop.worker_id
        with pytest.raises(JobFailed, match="one class"):
            await workshop.train(a_job(truth=np.zeros(600)))
        with pytest.raises(JobFailed, match="UnknownRecipe"):
            await workshop.train(a_job(recipe="prophet"))
        assert workshop.worker_id == before


async def test_a_job_beyond_its_cpu_time_ends_with_its_worker() -> None:
    endless = '{"trees": 1000000, "min_data_in_leaf": 1}'
    async with Supervisor(Limits(cpu_seconds=1)) as workshop:
        with pytest.raises(WorkerDied):
            await workshop.train(a_job(parameters=endless))


async def test_a_job_beyond_its_wall_time_ends_with_its_worker() -> None:
    endless = '{"trees": 1000000, "min_data_in_leaf": 1}'
    async with Supervisor(Limits(wall_seconds=0.5)) as workshop:
        with pytest.raises(WorkerDied, match="too long"):
            await workshop.train(a_job(parameters=endless))


async def test_a_worker_that_may_have_no_memory_does_not_hang_the_service() -> None:
    async with Supervisor(Limits(memory_bytes=64 * 1024**2)) as workshop:
        with pytest.raises(WorkerDied):
            await workshop.train(a_job())


async def test_the_worker_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEOSTAT_RETRAINER_DATABASE_URL", "postgresql://secret")
    async with Supervisor(Limits()) as workshop:
        await workshop.train(a_job())
        process = Path(f"/proc/{workshop.worker_id}")
        environment = await asyncio.to_thread((process / "environ").read_bytes)
    assert b"secret" not in environment


async def test_a_dead_workers_last_words_are_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Mock()
    monkeypatch.setattr("homeostat_retrainer.workshop.supervisor._log", log)
    async with Supervisor(Limits(memory_bytes=64 * 1024**2)) as workshop:
        with pytest.raises(WorkerDied):
            await workshop.train(a_job())
    assert "rror" in log.warning.call_args.kwargs["stderr"]


async def test_a_worker_that_nobody_needs_gives_its_memory_back_and_comes_again() -> None:
    async with Supervisor(Limits(idle_seconds=0.0)) as workshop:
        await workshop.train(a_job())
        before = workshop.worker_id
        await workshop.rest()
        assert workshop.worker_id is None
        assert (await workshop.train(a_job())).model
        assert workshop.worker_id != before
        assert workshop.deaths == 0


async def test_a_worker_is_replaced_after_many_jobs() -> None:
    async with Supervisor(Limits(jobs=2)) as workshop:
        await workshop.train(a_job())
        before = workshop.worker_id
        await workshop.rest()
        assert workshop.worker_id == before
        await workshop.train(a_job())
        await workshop.rest()
        await workshop.train(a_job())
        assert workshop.worker_id != before
        assert workshop.deaths == 0
