"""Whose turn it is: what waits for each version, and a fair order of runs among them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic_ns
from weakref import WeakKeyDictionary

from homeostat_inference.app.plan import BatchingPlan
from homeostat_inference.app.serving import Served
from homeostat_inference.app.waiting import Waiting, taken

# While others wait too, a run takes no more rows than it can do in this time.
_SLICE_SECONDS = 2e-3
NO_POLICY = BatchingPlan()

# Runs and answers a batch; the text is why its request is alone, if it is a single one.
RunBatch = Callable[[Served, list[Waiting], str], None]
ALONE = "alone"
OVER_THE_LIMIT = "rows over the limit"
# A run never has more rows than this, whatever a policy says.
MAX_RUN_ROWS = 4096


def max_rows(served: Served, policy: BatchingPlan, allowed_seconds: float) -> int:
    """How many rows a run may have: by the policy, and so that it is over in time."""
    limit = min(policy.max_rows or MAX_RUN_ROWS, MAX_RUN_ROWS)
    while limit > 1 and served.run_seconds(limit) > allowed_seconds:
        limit //= 2
    return limit


def preferred(policy: BatchingPlan, rows: int, limit: int) -> int:
    """How many of the rows that wait the next run takes."""
    fitting = [each for each in policy.preferred_rows if each <= rows]
    return min(limit, max(fitting)) if fitting else limit


@dataclass(slots=True)
class _Queue:
    """What waits for one version."""

    served: Served
    policy: BatchingPlan
    # Rows of a run.
    max_rows: int
    waiting: list[Waiting] = field(default_factory=list)
    rows: int = 0
    since_ns: int = 0
    # Time that its runs have taken, so that who has had least comes next.
    used_ns: int = 0

    def due_ns(self) -> int:
        """From when on it may run; 0 for at once."""
        delay_ns = int(self.policy.max_delay_seconds * 1e9)
        if not delay_ns or self.rows >= self._full_rows:
            return 0
        return self.since_ns + delay_ns

    @property
    def _full_rows(self) -> int:
        """More rows would not make the run better."""
        return min(max(self.policy.preferred_rows, default=self.max_rows), self.max_rows)

    def run_rows(self, *, is_shared: bool) -> int:
        """How many rows the next run takes."""
        limit = preferred(self.policy, self.rows, self.max_rows)
        while is_shared and limit > 1 and self.served.run_seconds(limit) > _SLICE_SECONDS:
            limit //= 2
        return limit


class Turns:
    """Queues of the versions that run in one thread, which alone may use it.

    Among those that may run, the version whose runs have taken the least time comes next. Time in
    which nothing waited for a version gives it no claim: it goes on where the others are.
    """

    def __init__(
        self,
        run: RunBatch,
        policy: Callable[[Served], BatchingPlan | None],
        now_ns: Callable[[], int] = monotonic_ns,
        *,
        allowed_seconds: float,
    ) -> None:
        """``policy``: how requests are batched. ``now_ns``: a clock that never falls.
        ``allowed_seconds``: what a run is expected to take at most, if it has several rows."""
        self._now_ns = now_ns
        self._allowed_seconds = allowed_seconds
        self._run = run
        self._policy = policy
        self._queues: dict[Served, _Queue] = {}
        # Used time of who ran last, and of those whose queues are empty now.
        self._floor_ns = 0
        self._used_ns: WeakKeyDictionary[Served, int] = WeakKeyDictionary()

    def add(self, served: Served, waiting: list[Waiting]) -> None:
        """More for this version."""
        queue = self._queues.get(served)
        if queue is None:
            policy = self._policy(served) or NO_POLICY
            limit = max_rows(served, policy, self._allowed_seconds)
            queue = _Queue(served, policy, limit, since_ns=self._now_ns())
            queue.used_ns = max(self._floor_ns, self._used_ns.get(served, 0))
            self._queues[served] = queue
        queue.waiting += waiting
        queue.rows += sum(each.rows for each in waiting)

    def wait_ns(self) -> int | None:
        """For how long nothing is due; None if nothing waits."""
        if not self._queues:
            return None
        first = min(each.due_ns() for each in self._queues.values())
        return max(0, first - self._now_ns()) if first else 0

    def work(self) -> None:
        """Runs one batch, if one is due."""
        now_ns = self._now_ns()
        due = [each for each in self._queues.values() if each.due_ns() <= now_ns]
        if not due:
            return
        queue = min(due, key=lambda each: each.used_ns)
        self._floor_ns = queue.used_ns
        rows = queue.run_rows(is_shared=len(self._queues) > 1)
        batch, queue.waiting = taken(queue.waiting, rows)
        queue.rows -= sum(each.rows for each in batch)
        queue.since_ns = now_ns
        if not queue.waiting:
            del self._queues[queue.served]
        self._run(queue.served, batch, OVER_THE_LIMIT if queue.waiting else ALONE)
        queue.used_ns += self._now_ns() - now_ns
        # Should it come back at once, it has had its share.
        self._used_ns[queue.served] = queue.used_ns
