"""Drives a server over HTTP by NVIDIA's client, in a process of its own: it brings gevent."""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton

AMOUNTS = np.array([[0.5], [np.nan], [2.0]], dtype=np.float32)
KINDS = np.array([["red"], [""], ["grün"]], dtype=object)
COUNTS = np.array([[1], [2], [3]], dtype=np.int64)
IDS = np.array(["a", "b", "c"], dtype=object)


def main(address: str, model: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(address, concurrency=4)
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "version_ready": client.is_model_ready(model, "1"),
        "unknown_ready": client.is_model_ready("nobody"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(model),
        "config": client.get_model_config(model),
        "index": client.get_model_repository_index(),
    }
    for name, is_binary in (("binary", True), ("json", False)):
        found[name] = infer(client, model, is_binary=is_binary)
    found["no_outputs_named"] = read(client.infer(model, inputs(is_binary=True), request_id="mine"))
    found["one_output"] = client.infer(
        model,
        inputs(is_binary=True),
        outputs=[triton.InferRequestedOutput("label", binary_data=False)],
    ).get_response()
    for each in ("gzip", "deflate"):
        found[each] = infer(
            client,
            model,
            is_binary=True,
            request_compression_algorithm=each,
            response_compression_algorithm=each,
        )
    found["pinned"] = infer(client, model, is_binary=True, model_version="1")
    waiting = [
        client.async_infer(model, inputs(is_binary=True), request_id=str(number))
        for number in range(20)
    ]
    found["async_ids"] = [each.get_result().get_response()["id"] for each in waiting]
    found["statistics"] = client.get_inference_statistics(model)
    for name, ask in (
        ("unknown", lambda: client.infer("nobody", inputs(is_binary=True))),
        ("load", lambda: client.load_model(model)),
        ("timed", lambda: client.infer(model, inputs(is_binary=True), timeout=1)),
    ):
        try:
            ask()
        except triton.InferenceServerException as error:
            found[name] = [error.status(), error.message()]
    return found


def inputs(*, is_binary: bool) -> list[Any]:
    made = []
    for name, values, datatype in (
        ("kind", KINDS, "BYTES"),
        ("amount", AMOUNTS, "FP32"),
        ("count", COUNTS, "INT64"),
        ("homeostat.id", IDS, "BYTES"),
    ):
        each = triton.InferInput(name, list(values.shape), datatype)
        each.set_data_from_numpy(values, binary_data=is_binary)
        made.append(each)
    return made


def infer(client: Any, model: str, *, is_binary: bool, **more: Any) -> dict[str, Any]:
    outputs = [
        triton.InferRequestedOutput("probabilities", binary_data=is_binary),
        # Mixed: one as bytes, one as JSON.
        triton.InferRequestedOutput("label", binary_data=False),
    ]
    answer = client.infer(
        model, inputs(is_binary=is_binary), outputs=outputs, request_id="mine", **more
    )
    return read(answer)


def read(answer: Any) -> dict[str, Any]:
    return {
        "id": answer.get_response()["id"],
        "label": answer.as_numpy("label").tolist(),
        "probabilities": answer.as_numpy("probabilities").tolist(),
        "parameters": answer.get_response()["parameters"],
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
