"""Asks for predictions, and later tells what was true."""

import asyncio

import numpy as np

from homeostat.client import Client, infer_request
from homeostat.endpoints import address
from homeostat.inference.v1.truth_pb2 import Outcome


async def main() -> None:
    patients = ["patient-1", "patient-2"]
    columns = {
        "mean_radius": np.array([12.1, 20.3], np.float32),
        "mean_texture": np.array([17.9, 25.1], np.float32),
        "mean_smoothness": np.array([0.09, 0.11], np.float32),
        "mean_concavity": np.array([0.03, 0.20], np.float32),
    }
    async with Client(address("inference")) as client:
        answer = await client.infer(infer_request("tumours", columns, client_ids=patients))
        for patient, row in zip(patients, answer.outputs["probabilities"], strict=True):
            label = ("benign", "malignant")[row.argmax()]
            print(f"{patient}: {label} with probability {row.max():.2f}, version {answer.version}")
        # Days later, when the laboratory has spoken: an id and the truth, nothing else.
        await client.record_outcomes(
            "tumours",
            [
                Outcome(client_id="patient-1", label="benign"),
                Outcome(client_id="patient-2", label="malignant"),
            ],
            source="laboratory",
        )
        print("told the truth of 2 patients")


asyncio.run(main())
