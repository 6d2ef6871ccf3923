"""Partitions are shared out: each has one reader, whoever comes and goes."""

from typing import Any, cast

import pytest

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_kit.postgres import Pool
from homeostat_monitor.intake.sharing import Sharing


class Table:
    """Who is live, as the database would tell."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    async def execute(self, _: str, name: str) -> None:
        self.names.add(name)

    async def fetch(self, _: str, __: float) -> list[dict[str, Any]]:
        return [{"name": name} for name in sorted(self.names)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
async def test_every_partition_has_one_reader_and_goes_to_another_when_its_reader_is_gone(
    count: int,
) -> None:
    table = Table()
    all_of_them = [Sharing(cast(Pool, table), f"monitor-{n}", 10.0) for n in range(count)]
    for _ in range(2):
        for each in all_of_them:
            await each.join()
    for killed in range(count):
        left = all_of_them[killed:]
        for topic in (PREDICTIONS, JOINED):
            read = [number for each in left for number in each.partitions(topic)]
            assert sorted(read) == list(range(topic.partitions))
        before = [each.changed for each in left[1:]]
        table.names.discard(f"monitor-{killed}")
        for each in left[1:]:
            await each.join()
        assert all(each.is_set() for each in before)


async def test_who_sees_nothing_new_goes_on_reading() -> None:
    table = Table()
    sharing = Sharing(cast(Pool, table), "one", 10.0)
    await sharing.join()
    before = sharing.changed
    await sharing.join()
    assert sharing.changed is before
    assert not before.is_set()
