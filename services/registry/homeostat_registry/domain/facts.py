"""Models, versions and what is said of them: immutable facts. Times are microseconds UTC."""

import dataclasses
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from homeostat_registry.domain.errors import BadArtifact, Invalid
from homeostat_registry.domain.serving import Serving

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
RESERVED_PREFIX = "homeostat."

NULLABLE_DATATYPES = frozenset({"FP16", "FP32", "FP64", "BYTES"})
FLOAT_DATATYPES = frozenset({"FP16", "FP32", "FP64"})
DATATYPES = NULLABLE_DATATYPES | {
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
}  # fmt: skip
_PARQUET_MARK = b"PAR1"
_MAX_TENSORS = 4096
_MAX_CLASSES = 10_000
_MAX_TEXT = 20_000


class Autonomy(IntEnum):
    """How far the gate may go without a person; numbers as in the contract."""

    OBSERVE = 1
    RECOMMEND = 2
    APPROVE = 3
    AUTO = 4


class Stage(IntEnum):
    """Where a version stands; numbers as in the contract."""

    REGISTERED = 1
    CHAMPION = 2
    AWAITS_APPROVAL = 3
    REJECTED = 4
    RETIRED = 5


class Task(IntEnum):
    """What a model predicts; numbers as in the contract."""

    BINARY = 1
    MULTICLASS = 2
    REGRESSION = 3


class Change(IntEnum):
    """What became of a version; numbers as in the contract."""

    REGISTERED = 1
    PROMOTED = 2
    REJECTED = 3
    ROLLED_BACK = 4
    RETIRED = 5
    AWAITS_APPROVAL = 6
    # No version moved: its model's traffic is shared out differently.
    SERVING = 7


@dataclass(frozen=True, slots=True)
class Tensor:
    """One named input or output. ``shape[0]`` is the batch, -1; other -1 are unknown widths."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    is_nullable: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """What a version takes and gives."""

    task: Task
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    classes: tuple[str, ...]
    score_output: str
    decision_threshold: float
    request_id_is_client_id: bool = False

    def widths(self) -> frozenset[int]:
        """Columns that the score output may have; binary may give class 1 alone."""
        if self.task is Task.REGRESSION:
            return frozenset({1})
        if self.task is Task.BINARY:
            return frozenset({1, 2})
        return frozenset({len(self.classes)})


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a candidate did on truth that neither it nor the champion was trained on."""

    candidate_sha256: str
    champion_sha256: str
    champion_version: int
    champion_etag: str
    holdout_sha256: str
    holdout_rows: int
    holdout_from_us: int
    holdout_to_us: int
    mean_gain: float
    gain_deviation: float
    candidate_count: int
    candidate_loss: float
    champion_loss: float


@dataclass(frozen=True, slots=True)
class Equivalence:
    """That a version is another form of its parent: it decides alike, and faster."""

    parent_sha256: str
    # Of the rows that both were given.
    rows_sha256: str
    row_count: int
    equal_count: int
    # The share of rows that must be equal.
    tolerated_share: float
    # Regression: how far two values may lie apart and count as equal.
    value_tolerance: float
    max_score_difference: float
    # Time of the parent over time of this version, per row.
    speed_up: float
    method: str
    machine: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version comes from."""

    recipe: str = ""
    recipe_parameters: str = ""
    data_set_sha256: str = ""
    training_rows: int = 0
    trained_to_us: int = 0
    parent_version: int = 0
    cause: str = ""
    alert_id: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Bytes by their hash."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody wants to be a version."""

    model_name: str
    signature: Signature
    lineage: Lineage
    evidence: Evidence | None
    model: Artifact
    reference: Artifact | None
    author: str
    fencing_token: int
    # The promotion's event time; None means now.
    occurred_at_us: int | None
    # Instead of evidence.
    equivalence: Equivalence | None = None

    @property
    def is_by_hand(self) -> bool:
        """No run made it."""
        return not self.lineage.run_id


@dataclass(frozen=True, slots=True)
class Model:
    """One model. ``revision`` counts the changes of champion, autonomy or serving, from 1."""

    name: str
    autonomy: Autonomy
    champion_version: int | None
    revision: int
    created_at_us: int
    highest_fencing_token: int = 0
    serving: Serving = field(default_factory=Serving)
    # At which champion or autonomy last changed; 0 means at this one.
    settled_revision: int = 0

    @property
    def etag(self) -> str:
        """Changes with every revision; never the same for two models."""
        return self._etag_at(self.revision)

    @property
    def comparison_etag(self) -> str:
        """Changes with champion and autonomy only."""
        return self._etag_at(self.settled_revision or self.revision)

    def reshared(self, serving: Serving) -> "Model":
        """With its traffic shared out so, at the next revision."""
        settled = self.settled_revision or self.revision
        return dataclasses.replace(
            self, serving=serving, revision=self.revision + 1, settled_revision=settled
        )

    def is_since_settled(self, etag: str) -> bool:
        """Whether it was the etag at or after the last change of champion or autonomy: what was
        compared then still holds, however the traffic was shared out since."""
        settled = self.settled_revision or self.revision
        return any(etag == self._etag_at(each) for each in range(settled, self.revision + 1))

    def _etag_at(self, revision: int) -> str:
        return hashlib.sha256(f"{self.name}\0{revision}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version; all but stage and reasons never changes."""

    model_name: str
    version: int
    stage: Stage
    model: Artifact
    reference: Artifact | None
    signature: Signature
    lineage: Lineage
    evidence: Evidence | None
    author: str
    reasons: tuple[str, ...]
    registered_at_us: int
    # What the jailed judge found, as JSON.
    admission: str
    # Instead of evidence.
    equivalence: Equivalence | None = None


@dataclass(frozen=True, slots=True)
class Reign:
    """From when on a version was champion: one line of the model's history of champions."""

    revision: int
    version: int
    since_us: int
    change: Change = field(default=Change.PROMOTED)


def require_model_name(name: str) -> str:
    """The name itself; Invalid if it can't be one."""
    if not _MODEL_NAME.fullmatch(name):
        raise Invalid(
            f"{name[:100]!r} is no model name: use 1 to 100 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
    return name


def require_sha256(sha256: str, what: str) -> str:
    """The hash itself; Invalid if it is not 64 lower-case hex digits."""
    if not _SHA256.fullmatch(sha256):
        raise Invalid(f"{what} must be a sha256 as 64 lower-case hex digits, not {sha256[:70]!r}")
    return sha256


def require_person(name: str, role: str) -> str:
    """Who acts, without surrounding blanks; Invalid if nobody is named."""
    stripped = require_text(name, role).strip()
    if not stripped or len(stripped) > 200:
        raise Invalid(f"say who acts: {role} must be a name of 1 to 200 characters")
    return stripped


def require_text(text: str, what: str) -> str:
    """The text itself; Invalid if it is too long or holds NUL, which the database can't store."""
    if len(text) > _MAX_TEXT:
        raise Invalid(f"{what} has {len(text)} characters; {_MAX_TEXT} is the limit")
    if "\0" in text:
        raise Invalid(f"{what} holds a NUL character; remove it")
    return text


def require_parquet(head: bytes, tail: bytes) -> None:
    """BadArtifact if a file that begins and ends so is no Parquet file, or not all of one."""
    if head != _PARQUET_MARK or tail != _PARQUET_MARK:
        raise BadArtifact(
            "the reference profile is not a whole Parquet file; "
            "build it with homeostat.reference.build"
        )


def check_registration(said: Registration, *, now_us: int, future_bound_seconds: float) -> None:
    """Invalid, with the cure, if the header can't be right whatever the files hold."""
    require_model_name(said.model_name)
    require_person(said.author, "author")
    require_sha256(said.model.sha256, "model_sha256")
    if said.reference is not None:
        require_sha256(said.reference.sha256, "reference_sha256")
    lineage = said.lineage
    for name, text in (
        ("lineage.recipe", lineage.recipe),
        ("lineage.recipe_parameters", lineage.recipe_parameters),
        ("lineage.data_set_sha256", lineage.data_set_sha256),
        ("lineage.cause", lineage.cause),
        ("lineage.alert_id", lineage.alert_id),
        ("lineage.run_id", lineage.run_id),
    ):
        require_text(text, name)
    _require_texts_of_proof(said)
    _require_time(said.occurred_at_us, now_us, future_bound_seconds)
    check_signature(said.signature)


def _require_texts_of_proof(said: Registration) -> None:
    if said.evidence is not None and said.equivalence is not None:
        raise Invalid(
            "the header has both evidence and equivalence: a version is better than the champion "
            "or another form of it; send one"
        )
    if said.evidence is not None:
        for text in (
            said.evidence.candidate_sha256,
            said.evidence.champion_sha256,
            said.evidence.champion_etag,
            said.evidence.holdout_sha256,
        ):
            require_text(text, "evidence")
    if said.equivalence is not None:
        for text in (
            said.equivalence.parent_sha256,
            said.equivalence.rows_sha256,
            said.equivalence.method,
            said.equivalence.machine,
        ):
            require_text(text, "equivalence")


def require_same_question(said: Signature, before: Version | None) -> None:
    """Invalid if the model's versions so far predict something else.

    Truth is told by class and counted by the class's place, whichever version answered.
    """
    if before is None:
        return
    there = before.signature
    if said.task is not there.task:
        raise Invalid(
            f"signature: the task is {said.task.name.lower()}, but {before.model_name} version "
            f"{before.version} is for {there.task.name.lower()}; push it as another model"
        )
    if said.classes != there.classes:
        raise Invalid(
            f"signature: the classes are {_listed(said.classes)}, but {before.model_name} version "
            f"{before.version} has {_listed(there.classes)}; name the same in the same order, or "
            "push it as another model"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(each[:40] for each in names[:5])
    return f"{shown}, ... ({len(names)})" if len(names) > 5 else shown


def _require_time(at_us: int | None, now_us: int, future_bound_seconds: float) -> None:
    if at_us is None:
        return
    if at_us <= 0:
        raise Invalid("occurred_at lies before 1970; leave it out for now")
    if at_us > now_us + future_bound_seconds * 1e6:
        raise Invalid(
            f"occurred_at lies more than {future_bound_seconds:.0f} s in the future; "
            "check the sender's clock and unit"
        )


def check_signature(signature: Signature) -> None:
    """Invalid, with the cure, if no model could have this signature."""
    _require_tensors(signature.inputs, "inputs")
    _require_tensors(signature.outputs, "outputs")
    if any(each.is_nullable for each in signature.outputs):
        raise Invalid("signature: outputs can't be nullable; clear is_nullable there")
    score = [each for each in signature.outputs if each.name == signature.score_output]
    if not score:
        names = ", ".join(each.name for each in signature.outputs)
        raise Invalid(
            f"signature: score_output {signature.score_output!r} is none of the outputs ({names})"
        )
    if score[0].datatype not in FLOAT_DATATYPES:
        raise Invalid(
            f"signature: score output {score[0].name!r} is {score[0].datatype}; "
            "name the output that holds probabilities or values (FP32 or FP64)"
        )
    _require_classes(signature)


def _require_tensors(tensors: Sequence[Tensor], what: str) -> None:
    names = [each.name for each in tensors]
    if not 1 <= len(names) <= _MAX_TENSORS:
        raise Invalid(f"signature: {len(names)} {what}; there must be 1 to {_MAX_TENSORS}")
    if len(set(names)) != len(names):
        raise Invalid(f"signature: two {what} have one name; names must differ")
    for each in tensors:
        _require_tensor(each, what)


def _require_tensor(tensor: Tensor, what: str) -> None:
    where = f"signature: {what}: {tensor.name[:100]!r}"
    require_text(tensor.name, where)
    if not 1 <= len(tensor.name) <= 200 or tensor.name.startswith(RESERVED_PREFIX):
        raise Invalid(
            f"{where}: a name has 1 to 200 characters and does not begin with {RESERVED_PREFIX!r}"
        )
    if tensor.datatype not in DATATYPES:
        raise Invalid(f"{where}: {tensor.datatype!r} is no Open Inference datatype")
    if not tensor.shape or tensor.shape[0] != -1 or len(tensor.shape) > 8:
        raise Invalid(f"{where}: the shape must begin with the batch dimension, -1")
    if any(size != -1 and not 1 <= size <= 1_000_000 for size in tensor.shape[1:]):
        raise Invalid(f"{where}: sizes behind the batch are 1 to 1,000,000, or -1 if unknown")
    if tensor.is_nullable and tensor.datatype not in NULLABLE_DATATYPES:
        raise Invalid(f"{where}: {tensor.datatype} can't hold nulls; only floats and BYTES can")


def _require_classes(signature: Signature) -> None:
    classes = signature.classes
    for each in classes:
        require_text(each, "signature: a class name")
    if len(set(classes)) != len(classes) or len(classes) > _MAX_CLASSES:
        raise Invalid(f"signature: classes must differ and be at most {_MAX_CLASSES}")
    wanted = {Task.BINARY: "exactly 2", Task.MULTICLASS: "3 or more", Task.REGRESSION: "no"}
    fits = {
        Task.BINARY: len(classes) == 2,
        Task.MULTICLASS: len(classes) >= 3,
        Task.REGRESSION: not classes,
    }
    if not fits[signature.task]:
        raise Invalid(
            f"signature: {signature.task.name.lower()} needs {wanted[signature.task]} classes, "
            f"not {len(classes)}"
        )
    if not (math.isfinite(signature.decision_threshold) and 0 <= signature.decision_threshold <= 1):
        raise Invalid("signature: decision_threshold must lie between 0 and 1")
