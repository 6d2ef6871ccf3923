"""Truth that is given up, as dead letters: which, and why, but neither truth nor features."""

from collections.abc import Awaitable, Callable, Iterator, Sequence

import numpy as np

from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.ids import event_id
from homeostat.topics import OUTCOMES, PREDICTIONS
from homeostat_kit.kafka import Bus, Outgoing, Unreadable
from homeostat_kit.kafka.dead_letters import DeadLetters
from homeostat_ledger.app.ports import Expired
from homeostat_ledger.domain.blocks import BY_CLIENT

Refuse = Callable[[str, Sequence[Unreadable]], Awaitable[None]]

_TOPICS = {each.name: each for each in (PREDICTIONS, OUTCOMES)}
_MAX_ROWS = 1000
_REASON = "no prediction came for it in time"


def refuser(bus: Bus) -> Refuse:
    """Tells of records of an epoch that hold what can't be, before their offsets are stored."""

    async def refuse(epoch: str, refused: Sequence[Unreadable]) -> None:
        await DeadLetters(bus, _TOPICS, epoch).tell(refused)

    return refuse


def teller(
    produce: Callable[[Sequence[Outgoing]], Awaitable[object]],
) -> Callable[[Sequence[Expired]], Awaitable[None]]:
    """What `expire` tells."""

    async def tell(expired: Sequence[Expired]) -> None:
        await produce([letter for each in expired for letter in _letters(each)])

    return tell


def _letters(expired: Expired) -> Iterator[Outgoing]:
    for start in range(0, len(expired.rows), _MAX_ROWS):
        rows = expired.rows[start : start + _MAX_ROWS]
        subjects = np.stack([rows["high"], rows["low"]], axis=1).astype("<u8")
        is_client = rows["row"] == BY_CLIENT
        ids = np.zeros(len(rows), dtype=[("subject", "<u8", 2), ("row", "<u4")])
        ids["subject"] = np.where(is_client[:, None], 0, subjects)
        ids["row"] = np.where(is_client, 0, rows["row"])
        message = OutcomeBlock(
            model_name=expired.model_name,
            row_count=len(rows),
            prediction_ids=ids.tobytes(),
            client_keys=np.where(is_client[:, None], subjects, 0).astype("<u8").tobytes(),
            known_at_us=rows["known_at_us"].astype("<i8").tobytes(),
        )
        value = message.SerializeToString()
        headers = {
            "ce_specversion": "1.0",
            "ce_id": event_id("expired", expired.model_name, value, rows["event_row"].tobytes()),
            "ce_source": "homeostat/ledger",
            "ce_type": OUTCOMES.ce_type,
            "reason": _REASON,
        }
        encoded = {name: text.encode() for name, text in headers.items()}
        yield Outgoing(OUTCOMES.dead_letter, None, value, encoded, partition=0)
