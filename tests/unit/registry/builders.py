"""Facts with sane defaults; a test says only what matters to its claim."""

import dataclasses
from typing import Any

from homeostat_registry.domain.facts import (
    Artifact,
    Autonomy,
    Evidence,
    Lineage,
    Model,
    Registration,
    Signature,
    Stage,
    Task,
    Tensor,
    Version,
)

CHAMPION_SHA = "c" * 64
CANDIDATE_SHA = "d" * 64
TRAINED_TO_US = 1_000_000


def a_model(**more: Any) -> Model:
    return dataclasses.replace(Model("flights", Autonomy.AUTO, 1, 2, 0), **more)


def a_signature(**more: Any) -> Signature:
    inputs = (Tensor("x", "FP32", (-1, 1)),)
    outputs = (Tensor("p", "FP32", (-1, 2)),)
    made = Signature(Task.BINARY, inputs, outputs, ("no", "yes"), "p", 0.5)
    return dataclasses.replace(made, **more)


def a_version(**more: Any) -> Version:
    made = Version(
        "flights",
        1,
        Stage.CHAMPION,
        Artifact(CHAMPION_SHA, 10),
        None,
        a_signature(),
        Lineage(trained_to_us=TRAINED_TO_US),
        None,
        "ann",
        (),
        0,
        "{}",
    )
    return dataclasses.replace(made, **more)


def some_evidence(**more: Any) -> Evidence:
    made = Evidence(
        candidate_sha256=CANDIDATE_SHA,
        champion_sha256=CHAMPION_SHA,
        champion_version=1,
        champion_etag=a_model().etag,
        holdout_sha256="e" * 64,
        holdout_rows=1_000,
        holdout_from_us=TRAINED_TO_US + 1,
        holdout_to_us=2 * TRAINED_TO_US,
        mean_gain=0.1,
        gain_deviation=0.5,
        candidate_count=3,
        candidate_loss=0.4,
        champion_loss=0.5,
    )
    return dataclasses.replace(made, **more)


def a_registration(**more: Any) -> Registration:
    made = Registration(
        "flights",
        a_signature(),
        Lineage(trained_to_us=TRAINED_TO_US, run_id="run-1"),
        some_evidence(),
        Artifact(CANDIDATE_SHA, 10),
        None,
        "retrainer",
        1,
        None,
    )
    return dataclasses.replace(made, **more)
