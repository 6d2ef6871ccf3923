"""What a server says of itself."""

from types import SimpleNamespace
from typing import Any, cast

from homeostat_inference.app.plan import ModelPlan
from homeostat_inference.app.planning import Planner
from homeostat_inference.edges.status import Status


def a_status(planner: Planner) -> Status:
    following = SimpleNamespace(
        planner=planner, failures={("risk", 1): "the registry has no file"}, away_since=None
    )
    told = SimpleNamespace(told=SimpleNamespace(failed={}))
    nothing = cast(Any, SimpleNamespace(away_seconds=None, held=[]))
    return Status(
        "inference-0", "durable", 1, nothing, cast(Any, following), nothing, nothing, [],
        cast(Any, told), {},
    )  # fmt: skip


def test_a_switch_behind_which_nobody_stands_is_told_of() -> None:
    planner = Planner(pinned_limit=4)
    planner.follow(ModelPlan("risk", 1, champion=2, fallback=1))
    assert not any("switched" in each for each in a_status(planner).degraded_reasons())
    planner.follow(ModelPlan("risk", 2, champion=2, fallback=1, is_on_fallback=True))
    (reason,) = (each for each in a_status(planner).degraded_reasons() if "switched" in each)
    assert "'risk' is switched to its fallback, version 1" in reason
    assert "the registry has no file" in reason and "set another fallback" in reason
