"""The plan goes over the control channel and to the disk and comes back the same."""

from homeostat_inference.app.plan import (
    BatchingPlan,
    CanaryPlan,
    ModelPlan,
    QuarantinePlan,
    ServingPlan,
)


def test_a_plan_survives_its_text() -> None:
    model = ModelPlan(
        "risk", 7, 3, CanaryPlan(4, 0.1), (5, 6), 2, True, BatchingPlan(64, 0.001, (8, 32))
    )
    plan = ServingPlan(
        9, {"risk": model}, (("risk", 1),), (QuarantinePlan("risk", 4, "crashed", ("ab",)),),
        (("risk", 3),),
    )  # fmt: skip
    assert ServingPlan.from_json(plan.to_json()) == plan


def test_workers_load_everybody_who_may_answer_once() -> None:
    model = ModelPlan("risk", 1, 3, CanaryPlan(4, 0.1), (5,), 3)
    assert model.versions() == (3, 4)
