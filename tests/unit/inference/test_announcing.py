"""Each activation is told of once, whatever dies when."""

from pathlib import Path

from homeostat.events.v1.version_activated_pb2 import VersionActivated
from homeostat_inference.app.plan import ModelPlan, ServingPlan
from homeostat_inference.app.ports import Done
from homeostat_inference.domain.errors import NotKept
from homeostat_inference.edges.announcing import Announcer
from homeostat_inference.edges.control import Loaded
from homeostat_kit.clock import FixedClock

PLAN = ServingPlan(number=1, models={"m": ModelPlan("m", 7, champion=3)})
LOADED = {("m", 3): Loaded("m", 3, 0.5, 0.0, 0.0)}


class World:
    """One life of the server."""

    def __init__(self, folder: Path) -> None:
        self.told: list[tuple[VersionActivated, Done]] = []
        self.announcer = Announcer(
            "inference-0", folder / "announced.json", FixedClock(1), self.publish
        )
        self.announcer.begin()

    def publish(self, message: bytes, done: Done) -> None:
        self.told.append((VersionActivated.FromString(message), done))

    def loads(self) -> None:
        self.announcer.loaded("worker-0", PLAN, LOADED)


def test_an_activation_is_told_again_unless_it_was_kept(tmp_path: Path) -> None:
    for refusal in (None, NotKept("full")):
        world = World(tmp_path)
        world.loads()
        world.loads()
        assert [(each.version, each.worker_id) for each, _ in world.told] == [
            (3, "inference-0/worker-0")
        ]
        if refusal is not None:
            world.told[0][1](refusal)
    world = World(tmp_path)
    world.loads()
    world.told[0][1](None)
    later = World(tmp_path)
    later.loads()
    assert not later.told
