"""What is said of models, and that saying it changes nothing."""

import re
from pathlib import Path

import pytest

from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec
from homeostat_inference.app import answers
from homeostat_inference.app.inventory import RESERVED, Inventory
from homeostat_inference.app.plan import BatchingPlan, ModelPlan, ServingPlan
from homeostat_inference.app.serving import Served, Table
from homeostat_inference.domain.errors import NotServed, NotServedYet
from homeostat_inference.domain.schema import schema_of

SIGNATURE = Signature(
    task=TASK_REGRESSION,
    inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, 1])],
    outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, 1])],
    score_output="y",
)


def an_inventory(max_rows: int = 0) -> Inventory:
    """Version 1 serves, version 2 is to be its fallback and is not here yet."""
    table = Table()
    served = Served(
        schema_of("m", 1, SIGNATURE),
        model=None,  # type: ignore[arg-type]
        run_seconds=lambda rows: 0.0,
        inline_seconds=1.0,
        queue_rows=10,
        queue_bytes=10,
    )
    model = ModelPlan("m", 1, champion=1, fallback=2, batching=BatchingPlan(max_rows))
    table.apply(ServingPlan(models={"m": model}), {("m", 1): served})
    return Inventory(table, max_run_rows=4096)


def test_who_asks_about_a_version_that_is_not_loaded_does_not_load_it() -> None:
    inventory = an_inventory()
    for version, kind, cure in (("2", NotServedYet, "try again"), ("7", NotServed, "loads it")):
        assert not inventory.is_ready("m", version)
        for ask in (inventory.model, inventory.config):
            with pytest.raises(kind, match=cure) as refused:
                ask("m", version)
            assert type(refused.value) is kind
    assert inventory.is_ready("m", "") and inventory.is_ready("m", "1")
    assert not inventory.is_ready("nobody", "")
    assert inventory.model("m", "1").versions == ["1"]


@pytest.mark.parametrize(("told", "expected"), [(0, 4096), (64, 64), (60_000, 4096)])
def test_the_largest_batch_is_the_models_own(told: int, expected: int) -> None:
    assert an_inventory(told).config("m", "").config.max_batch_size == expected


def test_every_parameter_of_an_answer_is_announced() -> None:
    written = set(re.findall(r'"(homeostat_\w+)"', Path(answers.__file__).read_text()))
    assert written and written <= set(RESERVED)
