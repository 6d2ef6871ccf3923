"""A model of Triton's Python backend for the benchmark: all waiting requests in one run."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Serves `model.onnx` beside this file."""

    def initialize(self, args):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = ort.InferenceSession(str(file), options)
        self._names = [each["name"] for each in json.loads(args["model_config"])["output"]]

    def execute(self, requests):
        rows = [pb_utils.get_input_tensor_by_name(each, "input").as_numpy() for each in requests]
        together = rows[0] if len(rows) == 1 else np.concatenate(rows)
        found = self._session.run(self._names, {"input": together})
        responses, first = [], 0
        for each in rows:
            last = first + len(each)
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor(name, np.ascontiguousarray(values[first:last]))
                        for name, values in zip(self._names, found, strict=True)
                    ]
                )
            )
            first = last
        return responses
