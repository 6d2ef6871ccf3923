"""Each form is measured in a process of its own: none can end the report."""

from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from onnx import helper
from tests.support import onnx_models
from tests.support.wide_models import a_network

from homeostat.advise import measuring
from homeostat.advise.forms import PRESENT, Form, Variant
from homeostat.advise.measuring import Plan, measure
from homeostat.advise.subject import CannotAdvise, Rows, Subject, rows_of
from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec

STATIC = Variant(Form.INT8_STATIC, "", form=Form.INT8_STATIC)
TWO_THREADS = Variant("threads-2", "", threads=2)


def measured(
    subject: Subject, rows: Rows, *variants: Variant, batches: Any = (1, 16), seconds: float = 0.2
) -> measuring.Measured:
    return measure(subject, rows, Plan((PRESENT, *variants), batches, seconds=seconds))


def a_subject(content: bytes, signature: Signature) -> Subject:
    return Subject("model", 1, content, signature)


def numbers(rows: int = 200) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({name: rng.normal(size=rows).astype(np.float32) for name in ("x", "z")})


def test_every_form_is_timed_with_every_number_of_rows_in_every_round() -> None:
    network = a_network(rows=700)
    subject = a_subject(network.content, network.signature)
    said: list[tuple[str, float]] = []
    found = measure(
        subject,
        rows_of(network.table, network.signature, "made up"),
        Plan((PRESENT, STATIC, TWO_THREADS), (1, 16), seconds=0.3),
        lambda what, share: said.append((what, share)),
    )
    assert found.rounds >= 5
    for outcome in found.outcomes:
        assert outcome.failure == ""
        assert [each.rows for each in outcome.timings] == [1, 16]
        assert all(each.seconds_per_row > 0 for each in outcome.timings)
        assert outcome.load_seconds > 0
        assert outcome.artifact_bytes > 0
    assert found.outcomes[0].timings[0].speed_up == 1.0
    assert set(found.files) == {"int8-static"}
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1


def test_a_form_that_kills_its_process_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = onnx_models.signature()
    fatal = onnx_models.halves(helper.make_node("Add", ["x", "z"], ["s"]))
    made = measuring._Child.ask

    def ask(self: Any, question: Any, seconds: float) -> Any:
        if question.get("name") == "threads-2":
            self._process.kill()
        return made(self, question, seconds)

    monkeypatch.setattr(measuring._Child, "ask", ask)
    found = measured(
        a_subject(fatal, signature), rows_of(numbers(), signature, "made up"), TWO_THREADS, STATIC
    )
    present, threads, static = found.outcomes
    assert "signal 9" in threads.failure
    assert "no matrix product" in static.failure
    assert present.timings
    assert not threads.timings


def test_nobody_is_left_behind() -> None:
    signature = onnx_models.signature()
    before = {each.pid for each in psutil.Process().children(recursive=True)}
    measured(
        a_subject(onnx_models.classifier(), signature),
        rows_of(numbers(), signature, "made up"),
        TWO_THREADS,
        STATIC,
    )
    assert {each.pid for each in psutil.Process().children(recursive=True)} <= before


def test_without_the_libraries_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "find_spec", lambda _: None)
    signature = onnx_models.signature()
    with pytest.raises(CannotAdvise, match=r"pip install 'homeostat\[advise\]'"):
        measured(a_subject(onnx_models.classifier(), signature), rows_of(numbers(), signature, "x"))


def test_a_model_that_never_answers_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_ANSWER_SECONDS", 3.0)
    signature = onnx_models.signature()
    with pytest.raises(CannotAdvise, match="did not answer in time"):
        measured(
            a_subject(onnx_models.endless(), signature), rows_of(numbers(), signature, "made up")
        )


def test_a_form_whose_answers_depend_on_the_batch_is_not_timed() -> None:
    network = a_network(rows=300, classes=1)
    loud = {name: network.table[name].to_numpy().copy() for name in network.table.column_names}
    for values in loud.values():
        values[70] *= 100
    rows = rows_of(pa.table(loud), network.signature, "made up")
    dynamic = Variant(Form.INT8_DYNAMIC, "", form=Form.INT8_DYNAMIC)
    by_row = Variant(Form.INT8_BY_ROW, "", form=Form.INT8_BY_ROW)
    found = measured(a_subject(network.content, network.signature), rows, dynamic, by_row)
    assert "no row may depend on its neighbours" in found.outcomes[1].failure
    assert not found.outcomes[1].timings
    assert "neighbours" not in found.outcomes[2].failure


def test_texts_and_nulls_reach_the_model_as_they_are() -> None:
    labels = helper.make_node(
        "LabelEncoder",
        ["kind"],
        ["code"],
        domain="ai.onnx.ml",
        keys_strings=["red", "", "grün"],
        values_floats=[1.0, 2.0, 3.0],
        default_float=9.0,
    )
    content = onnx_models.model(
        [labels, helper.make_node("Where", ["no", "code", "x"], ["kept"]),
         helper.make_node("Add", ["code", "kept"], ["answer"])],
        inputs=[onnx_models.value("kind", 8), onnx_models.value("x")],
        outputs=[onnx_models.value("answer")],
        initializers=[onnx_models.constant("no", np.array([False]))],
        opsets=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)],
    ).SerializeToString()  # fmt: skip
    signature = Signature(
        task=TASK_REGRESSION,
        inputs=[
            TensorSpec(name="kind", datatype="BYTES", shape=[-1, 1], is_nullable=True),
            TensorSpec(name="x", datatype="FP32", shape=[-1, 1], is_nullable=True),
        ],
        outputs=[TensorSpec(name="answer", datatype="FP32", shape=[-1, 1])],
        score_output="answer",
    )
    table = pa.table(
        {"kind": ["red", None, "grün", 'a "quote"'] * 50, "x": [1.0, None, 3.0, 4.0] * 50}
    )
    found = measured(a_subject(content, signature), rows_of(table, signature, "x"), TWO_THREADS)
    assert [each.failure for each in found.outcomes] == ["", ""]
    equality = found.outcomes[1].equality
    assert equality is not None
    assert equality.share == 1.0


def test_fewer_rows_than_a_run_has_go_round() -> None:
    signature = onnx_models.signature()
    content = onnx_models.classifier()
    rows = rows_of(numbers(5), signature, "made up")
    found = measured(a_subject(content, signature), rows, batches=(64,))
    assert found.outcomes[0].timings[0].rows == 64
