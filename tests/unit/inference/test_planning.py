"""From the registry's word to the plan."""

from homeostat.events.v1.serving_pb2 import Batching, Canary, Serving
from homeostat.registry.v1.registry_pb2 import Model
from homeostat_inference.app.plan import BatchingPlan, CanaryPlan, ModelPlan, ServingPlan
from homeostat_inference.app.planning import Key, Planner, Proven, attainable, model_plan

MODEL = Model(
    name="risk",
    revision=7,
    champion_version=3,
    serving=Serving(
        shadow_versions=[5],
        canary=Canary(version=4, share=0.1),
        fallback_version=1,
        batching=Batching(max_rows=8),
    ),
)


def everything(key: Key) -> bool:
    return True


def only(*versions: int) -> "set[Key]":
    return {("risk", each) for each in versions}


def renewed(planner: Planner, *versions: int) -> ServingPlan | None:
    return planner.renewed(only(*versions).__contains__, (), ())


def test_a_model_is_planned_as_the_registry_says() -> None:
    assert model_plan(MODEL) == ModelPlan(
        "risk", 7, 3, CanaryPlan(4, 0.1), (5,), 1, False, BatchingPlan(8)
    )
    assert model_plan(Model(name="new", revision=1)) == ModelPlan("new", 1)


def test_what_is_not_here_is_left_out() -> None:
    found = attainable(model_plan(MODEL), None, only(3).__contains__)
    assert (found.champion, found.canary, found.shadows, found.fallback) == (3, None, (), None)
    assert attainable(model_plan(MODEL), None, everything) == model_plan(MODEL)


def test_who_was_champion_goes_on_until_the_next_one_is_here() -> None:
    found = attainable(model_plan(MODEL), Proven(2, 6), only(2).__contains__)
    assert (found.champion, found.revision) == (2, 6)
    assert attainable(model_plan(MODEL), Proven(2, 6), only().__contains__).champion is None


def test_a_champion_that_can_not_be_loaded_leaves_the_proven_one_in_its_place() -> None:
    planner = Planner(pinned_limit=4)
    planner.follow(ModelPlan("risk", 1, champion=2))
    plan = renewed(planner, 2)
    assert plan is not None and plan.models["risk"].champion == 2
    planner.proven["risk"] = Proven(2, 1)
    planner.follow(ModelPlan("risk", 2, champion=3))
    planner.unfit.add(("risk", 3))
    assert renewed(planner, 2, 3) is None
    assert planner.versions() == only(2, 3)
    other = Planner(pinned_limit=4)
    other.restore(planner.stored())
    assert (other.proven, other.unfit) == (planner.proven, set())


def test_where_there_is_a_fallback_it_stands_in_for_a_champion_that_can_not_be_loaded() -> None:
    model = ModelPlan("risk", 2, champion=3, fallback=1)
    unfit = {("risk", 3)}
    assert attainable(model, Proven(2, 1), only(1, 2, 3).__contains__, unfit) == model
    assert attainable(model, Proven(2, 1), only(2, 3).__contains__, unfit).champion == 2


def test_plans_are_numbered_and_made_only_if_something_has_changed() -> None:
    planner = Planner(pinned_limit=4)
    assert renewed(planner) is None
    planner.follow(ModelPlan("risk", 1, champion=2))
    first, again, second = renewed(planner), renewed(planner), renewed(planner, 2)
    assert first is not None and again is None and second is not None
    assert (first.number, second.number) == (1, 2)


def test_older_news_of_a_model_are_not_followed() -> None:
    planner = Planner(pinned_limit=4)
    assert planner.follow(ModelPlan("risk", 2, champion=2))
    assert not planner.follow(ModelPlan("risk", 1, champion=1))
    assert planner.models["risk"].champion == 2


def test_of_pinned_versions_the_one_named_longest_ago_has_to_go() -> None:
    planner = Planner(pinned_limit=2)
    for version in (1, 2, 1, 3):
        planner.pin(("risk", version))
    assert planner.pinned == [("risk", 1), ("risk", 3)]
