"""The loop is quiet only when every reader has what every writer wrote."""

from homeostat.progress.v1.progress_pb2 import GetProgressResponse, PartitionPosition
from homeostat.quiet import lag
from homeostat.topics import ALERTS, PREDICTIONS


def an_answer(
    *,
    epoch: str = "e",
    produced: dict[tuple[str, int], int] | None = None,
    applied: dict[tuple[str, int], int] | None = None,
    unsent: int = 0,
    work: int = 0,
) -> GetProgressResponse:
    return GetProgressResponse(
        epoch=epoch,
        produced=[_position(*each) for each in (produced or {}).items()],
        applied=[_position(*each) for each in (applied or {}).items()],
        unsent_count=unsent,
        open_work_count=work,
    )


def _position(at: tuple[str, int], next_offset: int) -> PartitionPosition:
    return PartitionPosition(topic=at[0], partition=at[1], next_offset=next_offset)


def test_equal_positions_are_quiet() -> None:
    written = {(PREDICTIONS.name, 0): 5}
    found = lag(
        {
            "inference": an_answer(produced=written),
            "ledger": an_answer(applied=written),
            "monitor": an_answer(applied=written),
        }
    )
    assert found.is_quiet


def test_a_reader_that_is_behind_is_named() -> None:
    found = lag(
        {
            "inference": an_answer(produced={(PREDICTIONS.name, 1): 7}),
            "ledger": an_answer(applied={(PREDICTIONS.name, 1): 7}),
            "monitor": an_answer(applied={(PREDICTIONS.name, 1): 4}),
        }
    )
    assert found.records == 3
    assert "monitor is 3 behind on homeostat.predictions.v1" in found.detail


def test_a_reader_of_another_epoch_has_read_nothing() -> None:
    found = lag(
        {
            "monitor": an_answer(epoch="new", produced={(ALERTS.name, 0): 2}),
            "retrainer": an_answer(epoch="old", applied={(ALERTS.name, 0): 9}),
        }
    )
    assert found.records == 2


def test_unsent_events_and_open_work_are_not_quiet() -> None:
    assert not lag({"registry": an_answer(unsent=1)}).is_quiet
    assert not lag({"retrainer": an_answer(work=1)}).is_quiet
