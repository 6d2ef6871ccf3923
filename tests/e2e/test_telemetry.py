"""With an endpoint, a promotion can be followed back by links to the predictions that caused it."""

from pathlib import Path

import pytest
from tests.support.loop import a_stack, play
from tests.support.otlp import otlp_receiver
from tests.support.world import a_world, first_push

from homeostat.endpoints import SERVICES


@pytest.mark.slow
@pytest.mark.timeout(500)
async def test_a_promotion_is_linked_to_the_predictions_behind_it(tmp_path: Path) -> None:
    world = a_world(days=11)
    with otlp_receiver() as received:
        settings = {f"{name.upper()}_OTLP_ENDPOINT": received.address for name in SERVICES}
        with a_stack(tmp_path, settings=settings) as stack:
            played = await play(stack, first_push(world, tmp_path / "model"), world.played)
        assert played.story.promoted
        assert played.tally.failed_requests == 0
        registrations = [each for each in received.spans if each.service == "homeostat-registry"]
        chains = [
            [registration.service, *(each.service for each in received.causes(registration))]
            for registration in registrations
        ]
    longest = max(chains, key=lambda chain: len(set(chain)))
    order = [
        "homeostat-registry",
        "homeostat-retrainer",
        "homeostat-monitor",
        "homeostat-ledger",
        "homeostat-inference",
    ]
    assert sorted(set(longest), key=order.index) == order
    for name in SERVICES:
        assert received.metrics.get(f"homeostat-{name}"), f"no metrics of {name}"
        assert received.logs.get(f"homeostat-{name}"), f"no logs of {name}"
