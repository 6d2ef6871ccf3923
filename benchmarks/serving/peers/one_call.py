"""Single-row calls one after the other with tritonclient; prints quantiles in microseconds.

python one_call.py ADDRESS MODEL WIDTH CALLS
"""

import json
import sys
import time

import numpy as np
import tritonclient.grpc as triton


def main(address: str, model: str, width: str, calls: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(int(calls), int(width))).astype(np.float32)
    outputs = [triton.InferRequestedOutput(name) for name in ("label", "probabilities")]
    times = []
    with triton.InferenceServerClient(address) as client:
        for index, row in enumerate(rows):
            begun = time.perf_counter()
            given = triton.InferInput("input", [1, int(width)], "FP32")
            given.set_data_from_numpy(row[None])
            answer = client.infer(model, [given], outputs=outputs, request_id=str(index))
            scores = answer.as_numpy("probabilities")
            times.append(time.perf_counter() - begun)
            if scores.shape != (1, 2) or answer.get_response().id != str(index):
                raise SystemExit(f"wrong answer: {scores.shape}, {answer.get_response().id!r}")
    late = np.array(times[len(times) // 5 :]) * 1e6
    quantiles = np.quantile(late, (0.5, 0.9, 0.99))
    print(json.dumps(dict(zip(("p50_us", "p90_us", "p99_us"), quantiles.round(1), strict=True))))


main(*sys.argv[1:])
