"""What a signature implies: a fingerprint of its inputs, and decisions and scores from outputs."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import TASK_BINARY, TASK_MULTICLASS, TASK_REGRESSION
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec

Floats = NDArray[np.float64]


def fingerprint(inputs: Iterable[TensorSpec]) -> str:
    """sha256 (hex) of names, datatypes and nullability, in order."""
    digest = hashlib.sha256()
    for each in inputs:
        digest.update(f"{each.name}\x1f{each.datatype}\x1f{int(each.is_nullable)}\x1e".encode())
    return digest.hexdigest()


def judge(signature: Signature, output: NDArray[Any]) -> tuple[Floats, Floats]:
    """Scores and decisions of the score output, shape (rows,), (rows, 1) or (rows, classes).

    Binary: probability of class 1, and 1.0 where it reaches the threshold. Multiclass: probability
    of the likeliest class, and its index. Regression: the value, twice.
    """
    rows = len(output)
    table = np.asarray(output, dtype=np.float64).reshape(rows, -1) if rows else np.empty((0, 1))
    if signature.task == TASK_REGRESSION:
        return table[:, 0], table[:, 0]
    if signature.task == TASK_MULTICLASS:
        decided = table.argmax(axis=1)
        return table[np.arange(rows), decided], decided.astype(np.float64)
    if signature.task != TASK_BINARY:
        raise ValueError("the signature names no task")
    scores = table[:, -1]
    return scores, (scores >= (signature.decision_threshold or 0.5)).astype(np.float64)


def loss(task: int, decisions: Floats, truths: Floats) -> Floats:
    """0 or 1 per row (classification) or the squared error (regression)."""
    if task == TASK_REGRESSION:
        errors: Floats = np.square(decisions - truths)
        return errors
    missed: NDArray[np.bool_] = decisions != truths
    return missed.astype(np.float64)


def log_loss(task: int, output: NDArray[Any], truths: Floats) -> Floats:
    """Per row, in nats, probabilities clipped at 1e-6; squared error for regression."""
    rows = len(truths)
    table = np.asarray(output, dtype=np.float64).reshape(rows, -1)
    if task == TASK_REGRESSION:
        errors: Floats = np.square(table[:, 0] - truths)
        return errors
    if table.shape[1] == 1:
        table = np.hstack([1 - table, table])
    chosen = table[np.arange(rows), truths.astype(np.int64)]
    nats: Floats = -np.log(np.clip(chosen, 1e-6, 1.0))
    return nats
