"""All journals of a server: what is said to have been sent."""

from collections.abc import Sequence
from pathlib import Path

from homeostat.topics import PREDICTIONS
from homeostat_inference.edges.archive import Fate
from homeostat_inference.edges.journals import JournalRules, Journals
from homeostat_inference.edges.relay_hooks import Tail
from homeostat_kit.kafka import Outgoing


class Broker:
    """Counts, and forgets everything with each life."""

    def __init__(self) -> None:
        self.epoch = "first"
        self._ends: dict[tuple[str, int], int] = {}

    def begin_anew(self) -> None:
        self.epoch = "second"
        self._ends = {}

    async def produce_many(
        self, outgoing: Sequence[Outgoing], *, epoch: str | None = None
    ) -> list[tuple[int, int]]:
        found = []
        for each in outgoing:
            key = each.topic, each.partition or 0
            self._ends[key] = self._ends.get(key, 0) + 1
            found.append((key[1], self._ends[key] - 1))
        return found


async def nothing(block_ids: Sequence[bytes]) -> Fate:
    return Fate(is_settled=False)


async def test_offsets_of_a_broker_that_is_gone_are_not_said_to_be_the_next_ones(
    tmp_path: Path,
) -> None:
    broker = Broker()
    rules = JournalRules(
        segment_bytes=1 << 16, quota_bytes=1 << 20, is_durable=True, tail=Tail(0, 0.0, 0)
    )
    journals = Journals(tmp_path, rules, broker, nothing, "inference-0")  # type: ignore[arg-type]
    for mark_us in (1, 2, 3):
        await journals.promises.passed("keeper", mark_us, "first")
    assert journals.produced("first")[PREDICTIONS.name, 0] == 3
    broker.begin_anew()
    journals.promises.begin("keeper", "second")
    assert not journals.produced("second")
    await journals.promises.passed("keeper", 3, "second")
    assert journals.produced("second")[PREDICTIONS.name, 0] == 1
