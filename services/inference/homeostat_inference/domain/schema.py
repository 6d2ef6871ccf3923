"""What one version of a model accepts and answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from homeostat.columns import DTYPES
from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec
from homeostat.schema import fingerprint
from homeostat_inference.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output; the first dimension is the batch."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    is_nullable: bool
    # Values per row, and their bytes in a block (strings: their codes).
    width: int
    row_bytes: int
    # Numbers of which every bit pattern is a value: no string, no BOOL.
    is_plain: bool


@dataclass(frozen=True, slots=True)
class Schema:
    """A version's signature, made ready for checking requests."""

    model_name: str
    version: int
    signature: Signature
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    input_index: Mapping[str, int]
    output_index: Mapping[str, int]
    score_index: int
    fingerprint: str
    # What a row takes in a block, strings' own text not counted.
    all_outputs: tuple[int, ...]
    input_row_bytes: int
    output_row_bytes: int

    @property
    def task(self) -> int:
        """The contracts' Task."""
        return int(self.signature.task)

    def class_index(self, label: str) -> float:
        """Where a class stands in the signature; InvalidInput if it is none of the model's."""
        try:
            return float(list(self.signature.classes).index(label))
        except ValueError:
            raise InvalidInput(
                f"model {self.model_name!r}: expected one of the classes "
                f"{list(self.signature.classes)}, got {label[:64]!r}"
            ) from None

    def checked_truth(self, value: float) -> float:
        """The value, if the task can have it as truth; InvalidInput otherwise."""
        is_index = value.is_integer() and 0 <= value < max(2, len(self.signature.classes))
        if self.task == TASK_REGRESSION or is_index:
            return value
        raise InvalidInput(
            f"model {self.model_name!r}: expected a class index below "
            f"{max(2, len(self.signature.classes))}, got {value}"
        )


def schema_of(model_name: str, version: int, signature: Signature) -> Schema:
    """The schema of a registered version; InvalidInput if its signature can't be served."""
    inputs = tuple(_tensor(each) for each in signature.inputs)
    for each in inputs:
        if each.shape[0] != -1 or min(each.shape[1:], default=1) < 1:
            raise InvalidInput(
                f"model {model_name!r} version {version}, input {each.name!r}: expected a shape "
                f"of -1 and then fixed sizes, got {list(each.shape)}"
            )
    outputs = tuple(_tensor(each) for each in signature.outputs)
    output_index = {each.name: index for index, each in enumerate(outputs)}
    if not inputs or signature.score_output not in output_index:
        raise InvalidInput(
            f"model {model_name!r} version {version}: expected inputs and a score output among "
            f"{sorted(output_index)}, got {len(inputs)} inputs and {signature.score_output!r}"
        )
    return Schema(
        model_name=model_name,
        version=version,
        signature=signature,
        inputs=inputs,
        outputs=outputs,
        input_index=MappingProxyType({each.name: at for at, each in enumerate(inputs)}),
        output_index=MappingProxyType(output_index),
        score_index=output_index[signature.score_output],
        fingerprint=fingerprint(signature.inputs),
        all_outputs=tuple(range(len(outputs))),
        input_row_bytes=sum(each.row_bytes for each in inputs),
        output_row_bytes=sum(each.row_bytes for each in outputs),
    )


def _tensor(spec: TensorSpec) -> Tensor:
    if spec.datatype not in DTYPES and spec.datatype != "BYTES":
        raise InvalidInput(f"tensor {spec.name!r} has the unknown datatype {spec.datatype!r}")
    shape = tuple(spec.shape) or (-1,)
    width = 1
    for size in shape[1:]:
        width *= max(1, size)
    is_plain = spec.datatype not in ("BYTES", "BOOL")
    row_bytes = width * (DTYPES[spec.datatype].itemsize if spec.datatype in DTYPES else 4)
    return Tensor(spec.name, spec.datatype, shape, spec.is_nullable, width, row_bytes, is_plain)
