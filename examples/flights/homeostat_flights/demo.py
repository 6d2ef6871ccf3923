"""`homeostat demo flights`: start the loop, push January's model, play the year, tell the story."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from homeostat.checksum import of_client_keys
from homeostat.client import Client
from homeostat.ids import client_keys
from homeostat.push import send
from homeostat.quiet import Loop
from homeostat_flights.figures import Cost, Story, figures, incident_figures, read_story
from homeostat_flights.player import PlayedModel, Player, Tally
from homeostat_flights.prologue import MODEL_NAME, Prologue
from homeostat_flights.score import score
from homeostat_flights.screen import Screen
from homeostat_flights.watch import Watch
from homeostat_local.files import secret

_READY_SECONDS = 30.0


class Stack(Protocol):
    """The running services, as far as the demo needs them."""

    folder: Path

    @property
    def addresses(self) -> Mapping[str, str]:
        """Service name to "host:port"."""

    @property
    def peak_pss_mb(self) -> float:
        """The most memory that its processes and this one held together, MiB, shared pages counted
        once."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for."""

    months: int
    folder: Path
    json_path: Path | None
    report_path: Path
    # Three days of February with a feed in another unit.
    incident: bool = True


async def play_run(
    wish: Wish, prologue: Prologue, stack: Stack, *, began: float, console: Console
) -> dict[str, Any]:
    """Pushes, plays and tells; returns the figures. ``began``: monotonic seconds."""
    played = prologue.played
    tally = Tally.of(len(played))
    async with Client(stack.addresses["inference"]) as client, Loop(stack.addresses) as loop:
        await _push(prologue, stack, console)
        await _wait_until_served(client)
        model = PlayedModel(MODEL_NAME, prologue.prepared.signature.score_output)
        player = Player(played, model, client=client, loop=loop, tally=tally)
        with Screen(console) as screen:
            watch = Watch(
                stack.addresses,
                MODEL_NAME,
                played,
                prologue.never,
                tally,
                screen,
                incident=wish.incident,
            )
            async with watch:
                await player.play(watch.at_midnight)
    story = await read_story(stack.addresses, MODEL_NAME)
    cost = Cost(time.monotonic() - began, stack.peak_pss_mb)
    return _tell(wish, prologue, tally, story, cost, secret(stack.folder, "client_key").encode())


async def _push(prologue: Prologue, stack: Stack, console: Console) -> None:
    with console.status("pushing January's model") as status:
        pushed = await send(
            prologue.prepared,
            registry_address=stack.addresses["registry"],
            ledger_address=stack.addresses["ledger"],
            say=status.update,
        )
    console.print(
        f"pushed {MODEL_NAME} version {pushed.version.version}: {pushed.history_rows:,} flights "
        f"of history, sha256 {pushed.version.model_sha256[:12]}"
    )


async def _wait_until_served(client: Client) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not await client.is_model_ready(MODEL_NAME):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"the pushed model was not served within {_READY_SECONDS:.0f} s; "
                "see the inference log in the demo's folder"
            )
        await asyncio.sleep(0.05)


def _tell(
    wish: Wish, prologue: Prologue, tally: Tally, story: Story, cost: Cost, secret: bytes
) -> dict[str, Any]:
    played = prologue.played
    answered = np.isfinite(tally.answers)
    scores = score(
        played.departs_us[answered],
        played.late[answered],
        tally.answers[answered],
        prologue.never[answered],
    )
    told = tally.told & answered
    checksum = of_client_keys(
        client_keys(secret, played.ids[told].tolist()), played.late[told], played.known_us[told]
    )
    found = figures(tally, scores, story, cost, checksum)
    if wish.incident:
        found["incident"] = incident_figures(story)
    from homeostat_flights.report import write_report  # noqa: PLC0415 - plotly is large

    write_report(wish.report_path, scores, story, found)
    if wish.json_path is not None:
        wish.json_path.write_text(json.dumps(found, indent=2) + "\n")
    return found
