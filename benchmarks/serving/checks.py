"""Recorded answers against onnxruntime's own: values, shapes and ids."""

import struct
from pathlib import Path

import numpy as np
from benchmarks.serving.models import LABEL, SCORES, Bodies
from numpy.typing import NDArray

from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse

_TOLERANCE = 1e-5


class WrongAnswer(AssertionError):
    """A server answered something else than onnxruntime, or under another id."""


def check_recorded(path: Path, bodies: Bodies) -> int:
    """How many answers were compared; WrongAnswer at the first that differs."""
    content, at, compared = path.read_bytes(), 0, 0
    while at < len(content):
        body, request_id, length = struct.unpack_from("<IQI", content, at)
        at += 16
        _check(content[at : at + length], bodies, body, request_id)
        at += length
        compared += 1
    return compared


def _check(message: bytes, bodies: Bodies, body: int, request_id: int) -> None:
    is_compressed, length = message[0], int.from_bytes(message[1:5], "big")
    if is_compressed or length != len(message) - 5:
        raise WrongAnswer(f"not one gRPC message: {message[:16]!r}, {len(message)} bytes")
    answer = ModelInferResponse.FromString(message[5:])
    expected_id = f"{request_id:020}"
    if bodies.has_ids and answer.id != expected_id:
        raise WrongAnswer(f"id {answer.id!r} for the request {expected_id!r}")
    first = body * bodies.rows_per_request
    rows = slice(first, first + bodies.rows_per_request)
    labels, scores = _outputs(answer)
    if not np.array_equal(labels, bodies.model.labels[rows]):
        raise WrongAnswer(f"labels {labels} for rows {rows}")
    if not np.allclose(scores, bodies.model.scores[rows], rtol=0, atol=_TOLERANCE):
        raise WrongAnswer(f"scores {scores} for rows {rows}: {bodies.model.scores[rows]}")


def _outputs(answer: ModelInferResponse) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Labels and scores, from raw or typed contents."""
    found: dict[str, NDArray[np.generic]] = {}
    for index, tensor in enumerate(answer.outputs):
        dtype = {"INT64": np.int64, "FP32": np.float32}[tensor.datatype]
        if answer.raw_output_contents:
            values = np.frombuffer(answer.raw_output_contents[index], dtype)
        else:
            field = {"INT64": "int64_contents", "FP32": "fp32_contents"}[tensor.datatype]
            values = np.array(getattr(tensor.contents, field), dtype)
        found[tensor.name] = values.reshape(tuple(tensor.shape))
    scores = found[SCORES]
    if scores.ndim != 2 or scores.shape[1] != 2:
        raise WrongAnswer(f"scores of shape {scores.shape}")
    return found[LABEL].reshape(-1), scores  # type: ignore[return-value]
