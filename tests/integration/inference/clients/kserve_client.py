"""KServe's client against a server, by gRPC and, where one is told, by HTTP; JSON comes out."""

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

sys.path.insert(0, str(Path(__file__).parent))
from every_datatype import VALUES, same  # a script stands alone

# KServe's typed contents know no FP16, and its JSON neither that nor numpy's extremes.
TYPED = [name for name in VALUES if name != "fp16"]


async def main(address: str, model: str, http: str = "") -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        found: dict[str, Any] = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "models_ready": [await client.is_model_ready(each) for each in (model, "nobody")],
            "raw": _same(await client.infer(_request(model))),
            "typed": _same(await client.infer(_request(model, is_raw=False))),
            "id": (await client.infer(_request(model, request_id="mine"))).id,
            "refused": await _refused(client),
        }
    if http:
        found["http"] = await _by_http(f"http://{http}", model)
    return found


async def _by_http(url: str, model: str) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "models_ready": [await client.is_model_ready(url, each) for each in (model, "nobody")],
            "raw": _same(await client.infer(url, _request(model), model_name=model)),
            "id": (await client.infer(url, _request(model, request_id="mine"), model)).id,
        }


def _request(model: str, *, is_raw: bool = True, request_id: str | None = None) -> InferRequest:
    inputs = []
    for name, values in VALUES.items():
        each = InferInput(f"in_{name}", list(values.shape), name.upper())
        each.set_data_from_numpy(values, binary_data=is_raw or name not in TYPED)
        inputs.append(each)
    if not is_raw:
        # One request is raw or typed as a whole, so what has no typed contents is another model's.
        inputs = [each for each in inputs if each.name != "in_fp16"]
        model = f"{model}-typed"
    return InferRequest(model, inputs, request_id=request_id)


def _same(response: Any) -> list[str]:
    found = {each.name: each.as_numpy() for each in response.outputs}
    return [name for name in VALUES if f"out_{name}" in found and same(name, found[f"out_{name}"])]


async def _refused(client: Any) -> str:
    try:
        await client.infer(_request("nobody"))
    except Exception as error:
        return str(error.code())
    return ""


if __name__ == "__main__":
    logging.disable()
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
