"""8-bit forms by onnxruntime's quantiser: with calibrated ranges, or with ranges found per run."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx import shape_inference

from homeostat.advise.making import graphs
from homeostat.advise.making.refusal import NotPossible
from homeostat.advise.subject import Arrays

_CALIBRATION_BATCH_ROWS = 64


def static(content: bytes, calibration: Arrays) -> bytes:
    """QuantizeLinear and DequantizeLinear around each product; ranges from ``calibration``."""
    from onnxruntime import quantization as ort  # noqa: PLC0415 - 0.6 s

    model = _prepared(content)

    def convert(source: Path, target: Path) -> None:
        ort.quantize_static(
            source,
            target,
            _reader(calibration),
            quant_format=ort.QuantFormat.QDQ,
            op_types_to_quantize=list(graphs.PRODUCTS),
            per_channel=True,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            extra_options={"ForceQuantizeNoInputCheck": False},
        )

    return _converted(model, convert)


def dynamic(content: bytes) -> bytes:
    """DynamicQuantizeLinear before each product: one range over all rows of a run."""
    from onnxruntime import quantization as ort  # noqa: PLC0415 - 0.6 s

    model = _prepared(content)

    def convert(source: Path, target: Path) -> None:
        ort.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(graphs.PRODUCTS),
            per_channel=True,
            weight_type=ort.QuantType.QInt8,
        )

    return _converted(model, convert)


def _prepared(content: bytes) -> Any:
    model = graphs.read(content)
    graphs.require_products(model)
    model = graphs.with_opset(model)
    try:
        return shape_inference.infer_shapes(model)
    except Exception:
        return model  # shapes only help


def _converted(model: Any, convert: Callable[[Path, Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.onnx"), Path(folder, "target.onnx")
        source.write_bytes(model.SerializeToString())
        try:
            convert(source, target)
        except Exception as error:
            raise NotPossible(f"the quantiser fails: {type(error).__name__}: {error}") from error
        made = graphs.read(target.read_bytes())
    known = {node.op_type for node in made.graph.node}
    if not known & {"QuantizeLinear", "DynamicQuantizeLinear"}:
        raise NotPossible("the quantiser found nothing to quantise in it")
    return graphs.finished(made)


def _reader(calibration: Arrays) -> Any:
    """The rows in batches, as the quantiser wants to read them."""
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415 - as above

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rows = len(next(iter(calibration.values())))
            self._parts = iter(
                [
                    {
                        name: values[at : at + _CALIBRATION_BATCH_ROWS]
                        for name, values in calibration.items()
                    }
                    for at in range(0, rows, _CALIBRATION_BATCH_ROWS)
                ]
            )

        def get_next(self) -> Any:
            return next(self._parts, None)

    return Reader()
