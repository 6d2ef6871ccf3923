"""Who lost the lease writes nothing: another process may be doing the run by now."""

import pytest

from homeostat_kit.lease import Lease, LeaseLost, held_lease
from homeostat_kit.postgres import migrate, open_pool, retrying
from homeostat_retrainer import store
from homeostat_retrainer.domain.policy import Trigger
from homeostat_retrainer.domain.runs import Ended, Outcome, Run

RUN = Run("run-1", "m", Trigger.ALERT, 1, 1000, "alert-1")


async def test_a_process_that_lost_its_lease_neither_starts_nor_ends_a_run(
    postgres_url: str,
) -> None:
    pool = await open_pool(postgres_url, max_size=3)
    try:
        await migrate(pool, "homeostat_retrainer")
        await retrying(pool, lambda connection: store.want(connection, [RUN]))
        runs = store.PostgresRuns(pool)
        ended = Ended(Outcome.FAILED, ["late"])
        async with held_lease(pool, "runs", "new", 10) as lease:
            former = Lease("runs", lease.token - 1)
            with pytest.raises(LeaseLost):
                await runs.start(RUN, former, None)
            with pytest.raises(LeaseLost):
                await runs.end(RUN, ended, 0.0, former, None)
            assert await runs.next() == RUN
            assert await pool.fetchval("SELECT count(*) FROM outbox") == 0
            await runs.start(RUN, lease, None)
            await runs.end(RUN, ended, 0.0, lease, None)
        assert await runs.next() is None
    finally:
        await pool.close()
