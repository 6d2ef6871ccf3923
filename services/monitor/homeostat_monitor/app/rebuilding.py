"""A version's detectors as its past makes them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.app.replaying import Marks, Player, Promotion
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.ports import ModelStanding, Standing, StateKey


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """States that take the place of damaged ones, and what is to be said of them."""

    states: Mapping[StateKey, bytes]
    remarks: Sequence[str]


def player_of(
    subject: Subject, model: ModelStanding, marks: Marks, promotions: Sequence[Promotion]
) -> Player:
    """Plays up to where the model was judged: those two marks are passed for certain."""
    reached = {PREDICTIONS.name: model.windows_until_us, JOINED.name: model.losses_until_us}
    return Player(subject.model_name, marks.with_also(reached), {}, promotions)


async def rebuilt(
    player: Player,
    subject: Subject,
    keys: Collection[StateKey],
    live: Standing,
    *,
    accepted: int,
) -> Rebuilt:
    """What the past made of these detectors. ``live``: how far the version was judged, and how
    often; ``accepted``: alerts that ended because their level became the new normal."""
    found = player.tx.states(subject)
    states = {key: found[key][0] for key in keys if key in found}
    again = await player.tx.standing(subject)
    remarks = [
        f"the detector {_name(key)} was rebuilt from {player.rows} predictions and "
        f"{player.truths} truths of the ledger's past"
        if key in states
        else f"the detector {_name(key)} stays as it began anew: the ledger has nothing for it"
        for key in sorted(keys)
    ]
    if states and again.windows_judged != live.windows_judged:
        remarks.append(
            f"what was rebuilt saw {again.windows_judged} windows, {live.windows_judged} were "
            "judged: the ledger no longer has the others, or predictions came late"
        )
    if states and accepted:
        remarks.append(
            "what was rebuilt does not know the levels that were accepted as the new normal"
        )
    return Rebuilt(states, remarks)


def _name(key: StateKey) -> str:
    return f"{key.name} of the segment {key.segment}" if key.segment else key.name
