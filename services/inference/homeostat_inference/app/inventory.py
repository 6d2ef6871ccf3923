"""What this server says of itself and of the models that it serves."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from homeostat import __version__
from homeostat.inference.v2.open_inference_pb2 import (
    DataType,
    InferStatistics,
    ModelConfig,
    ModelConfigResponse,
    ModelDynamicBatching,
    ModelInput,
    ModelInstanceGroup,
    ModelMetadataResponse,
    ModelOutput,
    ModelStatistics,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
    ServerMetadataResponse,
    StatisticDuration,
)
from homeostat_inference.app.serving import NotLoaded, Served, Table
from homeostat_inference.domain.errors import InferenceError, NotServed, NotServedYet
from homeostat_inference.domain.requests import CONTEXT_PREFIX, EVENT_TIME_INPUT, ID_INPUT
from homeostat_inference.domain.schema import Tensor

PLATFORM = "onnxruntime_onnx"
SERVER_NAME = "homeostat"
# Of the protocol's own extensions, and ours.
EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
    "homeostat.prediction_id",
    "homeostat.outcomes",
    "homeostat.client_id",
    "homeostat.event_time",
    "homeostat.context",
    "homeostat.arms",
)
# Inputs that every model takes beside its own, none of which it sees; and what answers carry.
RESERVED = MappingProxyType(
    {
        ID_INPUT: "input, BYTES, [rows]: the client's own id",
        EVENT_TIME_INPUT: "input, INT64, [rows]: when it happens, microseconds UTC",
        f"{CONTEXT_PREFIX}<name>": "input, any datatype, [rows]: kept for diagnosis",
        "prediction_id": "response parameter: of the first row",
        "homeostat_row_count": "response parameter",
        "homeostat_version": "response parameter",
        "homeostat_arm": "response parameter: champion, canary, pinned or fallback",
        "homeostat_batch_rows": "response parameter: rows of the run",
        "homeostat_queue_us": "response parameter: waited before the run",
        "homeostat_batch_why": "response parameter: why the request ran alone, where it did",
        "homeostat_durability": "response parameter: durable, fast, sampled, or none: not kept",
        "homeostat_logged": "response parameter: false where the rows are not kept",
    }
)
# Why a model can't be loaded or unloaded over the protocol, and what does it.
LOADING_IS_THE_REGISTRYS = (
    "models are not loaded or unloaded by request: the registry says what is served; "
    "promote a version with `homeostat promote`, or name it in the request's path"
)


class Inventory:
    """Answers for both protocols. Who asks changes nothing: a version that is not loaded is fetched
    for a request that it shall answer, not for a question about it."""

    def __init__(self, table: Table, *, max_run_rows: int) -> None:
        """``max_run_rows``: what one run takes at most."""
        self._table = table
        self._max_run_rows = max_run_rows

    def server(self) -> ServerMetadataResponse:
        """Name, version and extensions."""
        return ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS)

    @property
    def model_names(self) -> list[str]:
        """Models that the server is to serve, whether it can or not."""
        return sorted(self._table.plan.models)

    def is_ready(self, model_name: str, version: str) -> bool:
        """Whether the model, or the named version of it, answers now."""
        try:
            self._served(model_name, version)
        except InferenceError:
            # What exactly keeps it from answering, a request is told.
            return False
        return True

    def model(self, model_name: str, version: str) -> ModelMetadataResponse:
        """Inputs, outputs, loaded versions, and what this server adds; NotServed."""
        schema = self._served(model_name, version).schema
        response = ModelMetadataResponse(
            name=model_name,
            versions=[str(each.schema.version) for each in self._loaded(model_name)],
            platform=PLATFORM,
            inputs=[_metadata(each) for each in schema.inputs],
            outputs=[_metadata(each) for each in schema.outputs],
        )
        for name, meaning in RESERVED.items():
            response.parameters[name].string_param = meaning
        return response

    def config(self, model_name: str, version: str) -> ModelConfigResponse:
        """How it is served, in Triton's words; NotServed."""
        schema = self._served(model_name, version).schema
        config = ModelConfig(
            name=model_name,
            platform=PLATFORM,
            backend="onnxruntime",
            max_batch_size=self._most_rows(model_name),
            input=[
                ModelInput(name=each.name, data_type=_data_type(each), dims=each.shape[1:])
                for each in schema.inputs
            ],
            output=[
                ModelOutput(name=each.name, data_type=_data_type(each), dims=each.shape[1:])
                for each in schema.outputs
            ],
            instance_group=[
                ModelInstanceGroup(name=model_name, count=1, kind=ModelInstanceGroup.KIND_CPU)
            ],
            dynamic_batching=self._batching(model_name),
        )
        return ModelConfigResponse(config=config)

    def _most_rows(self, model_name: str) -> int:
        plan = self._table.plan.models.get(model_name)
        told = 0 if plan is None else plan.batching.max_rows
        return min(told or self._max_run_rows, self._max_run_rows)

    def _batching(self, model_name: str) -> ModelDynamicBatching:
        plan = self._table.plan.models.get(model_name)
        if plan is None:
            return ModelDynamicBatching()
        return ModelDynamicBatching(
            preferred_batch_size=plan.batching.preferred_rows,
            max_queue_delay_microseconds=round(plan.batching.max_delay_seconds * 1e6),
        )

    def statistics(self, model_name: str, version: str) -> ModelStatisticsResponse:
        """What loaded versions have done; of all models, of one, or of one version. NotServed if
        nothing of that name is loaded."""
        found = [
            each
            for each in self._table.loaded
            if model_name in ("", each.schema.model_name)
            and version in ("", str(each.schema.version))
        ]
        if model_name and not found:
            # Says which models there are.
            self._table.route(model_name, "")
            raise NotServed(f"model {model_name!r} version {version[:32]!r} is not loaded")
        found.sort(key=lambda each: (each.schema.model_name, each.schema.version))
        return ModelStatisticsResponse(model_stats=[_statistics(each) for each in found])

    def index(self, *, is_ready_only: bool) -> RepositoryIndexResponse:
        """Every version that is to be served, and why one is not."""
        found = RepositoryIndexResponse(models=list(self._index()))
        if is_ready_only:
            ready = [each for each in found.models if each.state == "READY"]
            return RepositoryIndexResponse(models=ready)
        return found

    def _index(self) -> Iterator[RepositoryIndexResponse.ModelIndex]:
        plan = self._table.plan
        wanted = {(name, each) for name, model in plan.models.items() for each in model.versions()}
        loaded = {(each.schema.model_name, each.schema.version) for each in self._table.loaded}
        for name, version in sorted({*wanted, *plan.pinned, *loaded}):
            state, reason = self._state(name, version)
            yield RepositoryIndexResponse.ModelIndex(
                name=name, version=str(version), state=state, reason=reason
            )

    def _state(self, model_name: str, version: int) -> tuple[str, str]:
        try:
            self._table.route(model_name, str(version))
        except NotLoaded:
            return "LOADING", ""
        except InferenceError as error:
            return "UNAVAILABLE", str(error)
        return "READY", ""

    def _loaded(self, model_name: str) -> list[Served]:
        found = [each for each in self._table.loaded if each.schema.model_name == model_name]
        return sorted(found, key=lambda each: each.schema.version)

    def _served(self, model_name: str, version: str) -> Served:
        try:
            return self._table.route(model_name, version)[0]
        except NotLoaded as missing:
            raise self._not_loaded(missing.model_name, missing.version) from None

    def _not_loaded(self, model_name: str, version: int) -> NotServed:
        plan = self._table.plan
        model = plan.models.get(model_name)
        is_wanted = model is not None and version in model.versions()
        who = f"model {model_name[:128]!r} version {version}"
        if is_wanted or (model_name, version) in plan.pinned:
            return NotServedYet(f"{who} is being loaded; try again")
        return NotServed(f"{who} is not loaded; the first request that names it loads it")


def _metadata(tensor: Tensor) -> ModelMetadataResponse.TensorMetadata:
    return ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )


def _data_type(tensor: Tensor) -> Any:
    name = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return DataType.Value(f"TYPE_{name}")


def _statistics(served: Served) -> ModelStatistics:
    tally = served.tally
    return ModelStatistics(
        name=served.schema.model_name,
        version=str(served.schema.version),
        last_inference=tally.last_us // 1000,
        inference_count=tally.rows,
        execution_count=tally.runs,
        inference_stats=InferStatistics(
            success=StatisticDuration(count=tally.requests),
            fail=StatisticDuration(count=tally.refused),
            queue=StatisticDuration(count=tally.requests, ns=tally.queue_ns),
            compute_infer=StatisticDuration(count=tally.runs, ns=tally.run_ns),
        ),
    )
