"""Sends every datatype over HTTP by NVIDIA's client, and says which came back as they went."""

import json
import sys
from pathlib import Path
from typing import Any

import tritonclient.http as triton

sys.path.insert(0, str(Path(__file__).parent))
from every_datatype import VALUES, same  # a script stands alone

# This client itself refuses to write these as JSON.
NEVER_JSON = ("fp16",)


def main(address: str, model: str) -> dict[str, list[str]]:
    client = triton.InferenceServerClient(address)
    every_other = {name: at % 2 == 0 for at, name in enumerate(VALUES)}
    ways = {
        "binary": dict.fromkeys(VALUES, True),
        "json": dict.fromkeys(VALUES, False),
        "mixed": every_other,
    }
    return {way: sent(client, model, is_binary) for way, is_binary in ways.items()}


def sent(client: Any, model: str, is_binary: dict[str, bool]) -> list[str]:
    inputs, outputs = [], []
    for name, values in VALUES.items():
        as_bytes = is_binary[name] or name in NEVER_JSON
        each = triton.InferInput(f"in_{name}", list(values.shape), name.upper())
        each.set_data_from_numpy(values, binary_data=as_bytes)
        inputs.append(each)
        outputs.append(triton.InferRequestedOutput(f"out_{name}", binary_data=is_binary[name]))
    answer = client.infer(model, inputs, outputs=outputs)
    return [name for name in VALUES if same(name, answer.as_numpy(f"out_{name}"))]


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
