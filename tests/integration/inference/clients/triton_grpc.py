"""NVIDIA's gRPC client against a server; what it found, as JSON."""

import json
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton

sys.path.insert(0, str(Path(__file__).parent))
from every_datatype import VALUES, same  # a script stands alone


def main(address: str, model: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(address)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "models_ready": {
            f"{name}/{version}": client.is_model_ready(name, version)
            for name in (model, "nobody")
            for version in ("", "1", "2", "0", "x", "-1")
        },
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata(model, as_json=True),
        "version": client.get_model_metadata(model, "1", as_json=True),
        "same": _same(client.infer(model, inputs())),
        "gzip": _same(client.infer(model, inputs(), compression_algorithm="gzip")),
        "deflate": _deflated(client, model),
        "asynchronous": _same(_later(client, model)),
        "decorated": _decorated(client, model),
        "ids": [_response(client, model, request_id=each).id for each in ("", "mine", "grün\n")],
        "selected": [
            [output.name for output in _response(client, model, outputs=_wanted(names)).outputs]
            for names in (("out_fp32",), ("out_uint8", "out_bool"), ("out_bytes", "out_int64"))
        ],
        "refused": [_refused(client, *each) for each in (("nobody", ""), (model, "7"))],
    }


def inputs() -> list[Any]:
    found = []
    for name, values in VALUES.items():
        each = triton.InferInput(f"in_{name}", list(values.shape), name.upper())
        each.set_data_from_numpy(values)
        found.append(each)
    return found


def _wanted(names: tuple[str, ...]) -> list[Any]:
    return [triton.InferRequestedOutput(name) for name in names]


def _response(client: Any, model: str, **more: Any) -> Any:
    return client.infer(model, inputs(), **more).get_response()


def _same(result: Any) -> list[str]:
    """The datatypes that came back as they were sent."""
    return [name for name in VALUES if same(name, result.as_numpy(f"out_{name}"))]


def _deflated(client: Any, model: str) -> list[str]:
    try:
        return _same(client.infer(model, inputs(), compression_algorithm="deflate"))
    except triton.InferenceServerException as error:
        return [error.status()]


def _later(client: Any, model: str) -> Any:
    answered: queue.Queue[Any] = queue.Queue()
    client.async_infer(model, inputs(), lambda result, error: answered.put(error or result))
    return answered.get(timeout=10)


def _decorated(client: Any, model: str) -> list[str]:
    """Everything that a client may say and that changes nothing here."""
    return _same(
        client.infer(
            model,
            inputs(),
            model_version="1",
            sequence_id=7,
            sequence_start=True,
            sequence_end=True,
            priority=3,
            timeout=5_000_000,
            client_timeout=5.0,
            headers={"x-mine": "1"},
            parameters={"text": "a", "number": 1, "flag": True},
        )
    )


def _refused(client: Any, model: str, version: str) -> list[str]:
    try:
        client.infer(model, inputs(), model_version=version)
    except triton.InferenceServerException as error:
        return [error.status(), error.message()]
    return []


if __name__ == "__main__":
    np.seterr(all="ignore")
    print(json.dumps(main(*sys.argv[1:])))
