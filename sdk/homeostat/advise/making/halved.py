"""16-bit floats inside, 32-bit ones at the door: the signature stays."""

import warnings

import numpy as np

from homeostat.advise.making import graphs
from homeostat.advise.making.refusal import NotPossible

_LARGEST = float(np.finfo(np.float16).max)


def convert(content: bytes) -> bytes:
    """The model with FP16 weights and products; NotPossible where weights don't fit."""
    from onnxruntime.transformers import float16  # noqa: PLC0415 - slow to import

    model = graphs.read(content)
    graphs.require_products(model)
    for each in graphs.float_weights(model):
        values = graphs.array(each)
        if values.size and not np.abs(values).max() <= _LARGEST:
            raise NotPossible(
                f"a weight of {each.name!r} is beyond {_LARGEST:g}, float16's largest"
            )
    try:
        with warnings.catch_warnings():
            # Weights nearer to zero than float16 goes become its smallest: the comparison judges.
            warnings.simplefilter("ignore")
            made = float16.convert_float_to_float16(model, keep_io_types=True)
    except Exception as error:
        raise NotPossible(f"the converter fails: {type(error).__name__}: {error}") from error
    return graphs.finished(made)
