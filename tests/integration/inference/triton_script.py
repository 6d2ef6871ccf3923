"""Drives a server by NVIDIA's client, in a process of its own: its stubs and ours clash."""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton

AMOUNTS = np.array([[0.5], [np.nan], [2.0]], dtype=np.float32)
KINDS = np.array([["red"], [""], ["grün"]], dtype=object)


def main(address: str, model: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(address)
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "unknown_ready": client.is_model_ready("nobody"),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata(model, as_json=True),
        "version": client.get_model_metadata(model, "1", as_json=True),
    }
    found["raw"] = _infer(client, model)
    found["selected"] = [
        each.name
        for each in client.infer(model, _inputs(), outputs=[triton.InferRequestedOutput("label")])
        .get_response()
        .outputs
    ]
    found["pinned"] = _infer(client, model, model_version="1")
    try:
        client.infer("nobody", _inputs())
    except triton.InferenceServerException as error:
        found["unknown"] = [error.status(), error.message()]
    return found


def _inputs() -> list[Any]:
    inputs = []
    for name, values, datatype in (
        ("kind", KINDS, "BYTES"),
        ("amount", AMOUNTS, "FP32"),
        ("count", np.array([[1], [2], [3]], dtype=np.int64), "INT64"),
        ("homeostat.id", np.array(["a", "b", "c"], dtype=object), "BYTES"),
    ):
        each = triton.InferInput(name, list(values.shape), datatype)
        each.set_data_from_numpy(values)
        inputs.append(each)
    return inputs


def _infer(client: Any, model: str, **more: Any) -> dict[str, Any]:
    answer = client.infer(model, _inputs(), request_id="mine", **more)
    response = answer.get_response()
    return {
        "id": response.id,
        "label": answer.as_numpy("label").tolist(),
        "probabilities": answer.as_numpy("probabilities").tolist(),
        "parameters": {
            name: getattr(each, each.WhichOneof("parameter_choice"))
            for name, each in response.parameters.items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
