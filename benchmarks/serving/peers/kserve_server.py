"""kserve's model server for the benchmark: onnxruntime, one thread, nothing else.

python kserve_server.py GRPC_PORT HTTP_PORT NAME=FILE...
"""

import sys

import onnxruntime as ort

_, grpc_port, http_port, *models = sys.argv
sys.argv = sys.argv[:1]  # kserve reads the arguments when it is imported

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # noqa: E402
from kserve.utils.numpy_codec import from_np_dtype  # noqa: E402


class OnnxModel(Model):
    """Serves one ONNX file."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(path, options)
        self._names = [each.name for each in self._session.get_outputs()]
        self.ready = True

    def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:
        found = self._session.run(None, {"input": payload.inputs[0].as_numpy()})
        outputs = []
        for name, values in zip(self._names, found, strict=True):
            output = InferOutput(name, list(values.shape), from_np_dtype(values.dtype))
            output.set_data_from_numpy(values, binary_data=True)
            outputs.append(output)
        return InferResponse(
            response_id=payload.id,
            model_name=self.name,
            infer_outputs=outputs,
            use_binary_outputs=True,
        )


if __name__ == "__main__":
    ModelServer(
        http_port=int(http_port),
        grpc_port=int(grpc_port),
        workers=1,
        enable_latency_logging=False,
    ).start([OnnxModel(*each.split("=", 1)) for each in models])
