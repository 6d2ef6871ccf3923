"""The model is loaded and run on made-up rows, and must answer as its signature says."""

import time
from typing import Any

import numpy as np

from homeostat_registry.admission import rows
from homeostat_registry.admission.refusal import Refused, named

_TYPES = {
    "tensor(bool)": "BOOL", "tensor(int8)": "INT8", "tensor(int16)": "INT16",
    "tensor(int32)": "INT32", "tensor(int64)": "INT64", "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32", "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16", "tensor(float)": "FP32", "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}  # fmt: skip
_BATCH_ROWS = 64
# Enough to find a dependence between rows; each is a run of its own.
_SINGLE_ROWS = 16
# Matrix products of other sizes sum in another order.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
_PROBABILITY_SLACK = 1e-2

Signature = dict[str, Any]


def load(content: bytes) -> Any:
    """A session of one thread; Refused if onnxruntime does not take the file."""
    import onnxruntime as ort  # noqa: PLC0415 - in the child: it starts a thread, and forks badly

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        _raise_if_out_of_memory(error)
        raise Refused(
            f"onnxruntime does not load the model: {_short(error)} "
            "Export it with operators and types that onnxruntime implements."
        ) from None


def try_out(content: bytes, signature: Signature) -> dict[str, Any]:
    """Loads and runs the model every way that matters; what was measured, or Refused."""
    measured, feeds, batch = _try_once(load(content), signature)
    # Another worker, or this one tomorrow, must answer the same.
    elsewhere, _ = _run(load(content), [each["name"] for each in signature["outputs"]], feeds)
    _require_same(batch, elsewhere)
    return {**measured, "sessions_tried": 2}


def _try_once(
    session: Any, signature: Signature
) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    inputs = _fit_inputs(session, signature)
    _fit_outputs(session, signature)
    names = [each["name"] for each in signature["outputs"]]
    feeds = rows.ordinary(inputs, _BATCH_ROWS)
    batch, batch_seconds = _run(session, names, feeds)
    _require_outputs(signature, batch, _BATCH_ROWS)
    again, _ = _run(session, names, feeds)
    _require_same(batch, again)
    single_seconds = _require_independent(session, signature, feeds, batch)
    _survive(session, names, inputs)
    measured = {
        "rows_tried": _BATCH_ROWS,
        "single_row_seconds": round(single_seconds, 7),
        "batch_seconds": round(batch_seconds, 7),
    }
    return measured, feeds, batch


def _require_same(one: list[Any], two: list[Any]) -> None:
    if not all(_same(first, second, exactly=True) for first, second in zip(one, two, strict=True)):
        raise Refused(
            "The model answers the same rows differently each time; "
            "remove random operators (dropout, noise) before exporting."
        )


def _raise_if_out_of_memory(error: Exception) -> None:
    """onnxruntime has no exception of its own for it."""
    told = str(error).lower()
    if isinstance(error, MemoryError) or "allocate memory" in told or "bad_alloc" in told:
        raise MemoryError from error


def _fit_inputs(session: Any, signature: Signature) -> list[dict[str, Any]]:
    """The signature's inputs with the widths to try."""
    wanted = {each["name"]: each for each in signature["inputs"]}
    found = {each.name: each for each in session.get_inputs()}
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or extra:
        raise Refused(
            f"The signature's inputs are not the model's: {_differences(missing, extra)}"
            "name each of the model's inputs once in the signature."
        )
    return [{**wanted[name], "shape": _fit(wanted[name], found[name], "input")} for name in wanted]


def _fit_outputs(session: Any, signature: Signature) -> None:
    found = {each.name: each for each in session.get_outputs()}
    for each in signature["outputs"]:
        if each["name"] not in found:
            raise Refused(
                f"The model has no output {each['name']!r} (it has "
                f"{', '.join(map(named, sorted(found)[:5]))}); "
                "correct the signature."
            )
        _fit(each, found[each["name"]], "output")


def _fit(wanted: dict[str, Any], found: Any, kind: str) -> list[int]:
    """Sizes with which to try; Refused if datatype, rank or sizes differ."""
    name = wanted["name"]
    datatype = _TYPES.get(found.type)
    if datatype is None:
        raise Refused(
            f"The model's {kind} {name!r} is a {found.type}; only tensors are served: "
            "turn ZipMap off when converting (options={'zipmap': False})."
        )
    if datatype != wanted["datatype"]:
        raise Refused(
            f"The {kind} {name!r} is {datatype} in the model but {wanted['datatype']} in the "
            "signature; correct the signature."
        )
    shape, said = list(found.shape or []), list(wanted["shape"])
    if not shape:
        return [max(1, size) if at else -1 for at, size in enumerate(said)]
    if len(shape) != len(said):
        raise Refused(
            f"The {kind} {name!r} has the shape {_spoken(shape)} in the model but {said} in the "
            "signature; correct the signature."
        )
    if isinstance(shape[0], int) and kind == "input":
        raise Refused(
            f"The model's {kind} {name!r} takes exactly {shape[0]} rows; "
            "export it with a dynamic batch dimension."
        )
    for at in range(1, len(said)):
        if isinstance(shape[at], int) and said[at] not in (-1, shape[at]):
            raise Refused(
                f"The {kind} {name!r} has the shape {_spoken(shape)} in the model but {said} in "
                "the signature; correct the signature."
            )
    sizes = [
        size if size > 0 else (known if isinstance(known, int) else 1)
        for size, known in zip(said[1:], shape[1:], strict=True)
    ]
    return [-1, *sizes]


def _run(session: Any, names: list[str], feeds: dict[str, Any]) -> tuple[list[Any], float]:
    began = time.perf_counter()
    try:
        outputs = session.run(names, feeds)
    except Exception as error:
        _raise_if_out_of_memory(error)
        count = len(next(iter(feeds.values())))
        raise Refused(
            f"The model fails on {count} made-up row{'s' if count > 1 else ''} (with nulls where "
            f"nullable, and strings never seen): {_short(error)} Let the preprocessing handle "
            "unknown values (handle_unknown) and any number of rows."
        ) from None
    return [np.asarray(each) for each in outputs], time.perf_counter() - began


def _require_outputs(signature: Signature, outputs: list[Any], count: int) -> None:
    for said, values in zip(signature["outputs"], outputs, strict=True):
        name = said["name"]
        if values.ndim == 0 or len(values) != count:
            raise Refused(
                f"The output {name!r} has the shape {list(values.shape)} for {count} rows; "
                "its first dimension must be the rows."
            )
        if len(said["shape"]) != values.ndim or any(
            size not in (-1, real)
            for size, real in zip(said["shape"][1:], values.shape[1:], strict=True)
        ):
            raise Refused(
                f"The output {name!r} came with the shape {list(values.shape)}, the signature says "
                f"{said['shape']}; correct the signature."
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise Refused(
                f"The output {name!r} is not finite for some made-up rows; let the preprocessing "
                "fill nulls and bound extremes."
            )
        if name == signature["score_output"]:
            _require_scores(signature, values.reshape(count, -1).astype(np.float64))


def _require_scores(signature: Signature, table: Any) -> None:
    name, classes = signature["score_output"], signature["classes"]
    if table.shape[1] not in signature["widths"]:
        raise Refused(
            f"The score output {name!r} has {table.shape[1]} columns for {len(classes)} classes; "
            "name the output that holds the probabilities, and every class once."
        )
    if not classes:
        return
    slack = _PROBABILITY_SLACK
    if (table < -slack).any() or (table > 1 + slack).any():
        raise Refused(
            f"The score output {name!r} holds numbers outside 0 to 1; "
            "name the output that holds probabilities, not raw scores."
        )
    if table.shape[1] > 1 and (np.abs(table.sum(axis=1) - 1) > slack).any():
        raise Refused(
            f"The score output {name!r}: the probabilities of a row don't add up to 1; "
            "export the model with probabilities."
        )


def _require_independent(
    session: Any, signature: Signature, feeds: dict[str, Any], batch: list[Any]
) -> float:
    """A row's answer must not depend on its neighbours; the shortest run of one row, seconds."""
    names = [each["name"] for each in signature["outputs"]]
    shortest = float("inf")
    for start, size in [(2, 2), *((row, 1) for row in range(_SINGLE_ROWS))]:
        part = {name: values[start : start + size] for name, values in feeds.items()}
        outputs, seconds = _run(session, names, part)
        _require_outputs(signature, outputs, size)
        shortest = min(shortest, seconds)
        for whole, alone in zip(batch, outputs, strict=True):
            if not _same(whole[start : start + size], alone, exactly=False):
                raise Refused(
                    "The model answers a row differently alone and among others; rows are batched "
                    "when served: remove operators that work across rows."
                )
    return shortest


def _survive(session: Any, names: list[str], inputs: list[dict[str, Any]]) -> None:
    """Refusing extremes is fine; dying of them is what the watcher outside notices."""
    feeds = rows.extreme(inputs, _BATCH_ROWS)
    for row in range(_BATCH_ROWS):
        alone = {name: values[row : row + 1] for name, values in feeds.items()}
        try:
            session.run(names, alone)
        except Exception:  # noqa: S112 - any answer but death will do
            continue


def _same(one: Any, two: Any, *, exactly: bool) -> bool:
    if one.shape != two.shape:
        return False
    if one.dtype.kind != "f":
        return bool((one == two).all())
    if exactly:
        return bool(np.array_equal(one, two, equal_nan=True))
    return bool(np.allclose(one, two, rtol=_RELATIVE, atol=_ABSOLUTE))


def _differences(missing: list[str], extra: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"the model has no {', '.join(map(named, missing[:5]))}; ")
    if extra:
        parts.append(f"the signature lacks {', '.join(map(named, extra[:5]))}; ")
    return "".join(parts)


def _spoken(shape: list[Any]) -> list[Any]:
    return [size if isinstance(size, int) else -1 for size in shape]


def _short(error: Exception) -> str:
    first = str(error).strip().splitlines()
    text = (first[0] if first else type(error).__name__)[:300]
    return text if text.endswith(".") else f"{text}."
