"""Values of every datatype with their extremes, for clients in processes of their own."""

import numpy as np

# What an answer has to give back, bit for bit: three rows each.
VALUES: dict[str, np.ndarray] = {
    "bool": np.array([[True], [False], [True]]),
    "int8": np.array([[-128], [0], [127]], np.int8),
    "int16": np.array([[-(2**15)], [0], [2**15 - 1]], np.int16),
    "int32": np.array([[-(2**31)], [0], [2**31 - 1]], np.int32),
    "int64": np.array([[-(2**63)], [0], [2**63 - 1]], np.int64),
    "uint8": np.array([[0], [1], [255]], np.uint8),
    "uint16": np.array([[0], [1], [2**16 - 1]], np.uint16),
    "uint32": np.array([[0], [1], [2**32 - 1]], np.uint32),
    "uint64": np.array([[0], [1], [2**64 - 1]], np.uint64),
    "fp16": np.array([[-65504], [6e-8], [65504]], np.float16),
    "fp32": np.array([[-3.4e38], [1e-45], [0.1]], np.float32),
    "fp64": np.array([[-1.7e308], [5e-324], [0.1]], np.float64),
    "bytes": np.array([[b""], ["grün \U0001f600".encode()], [b"a\nb\x00"]], dtype=object),
}


def same(name: str, got: np.ndarray) -> bool:
    """Whether an output is what was sent, shape and type included."""
    sent = VALUES[name]
    if name == "bytes":
        texts = [each.encode() if isinstance(each, str) else each for each in got.reshape(-1)]
        return got.shape == sent.shape and texts == sent.reshape(-1).tolist()
    return got.dtype == sent.dtype and got.shape == sent.shape and got.tobytes() == sent.tobytes()
