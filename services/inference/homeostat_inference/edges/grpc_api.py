"""Everything but the hot path: who serves what, truth, promises, and how far we are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from homeostat.inference.v2.open_inference_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from homeostat_inference.app.inventory import LOADING_IS_THE_REGISTRYS, Inventory
from homeostat_inference.domain.errors import NotOffered
from homeostat_inference.edges.roles import INFERENCE_SERVICE
from homeostat_inference.edges.streaming import Streams

Context = Any


@dataclass(frozen=True, slots=True)
class ServerState:
    """Whether the server takes requests."""

    is_ready: Callable[[], bool]
    is_leaving: Callable[[], bool]


class InferenceApi:
    """The Open Inference Protocol and Triton's extensions of it, except ModelInfer."""

    def __init__(self, inventory: Inventory, state: ServerState, streams: Streams) -> None:
        self._inventory = inventory
        self._state = state
        self._streams = streams

    async def live(self, request: ServerLiveRequest, context: Context) -> ServerLiveResponse:
        """The process answers."""
        return ServerLiveResponse(live=True)

    async def ready(self, request: ServerReadyRequest, context: Context) -> ServerReadyResponse:
        """Every champion that we know of is loaded."""
        return ServerReadyResponse(ready=self._state.is_ready())

    async def server_metadata(
        self, request: ServerMetadataRequest, context: Context
    ) -> ServerMetadataResponse:
        """Name, version, extensions."""
        return self._inventory.server()

    async def model_ready(self, request: ModelReadyRequest, context: Context) -> ModelReadyResponse:
        """Whether the model, or the named version of it, could answer now."""
        is_ready = self._inventory.is_ready(request.name, request.version)
        return ModelReadyResponse(ready=is_ready)

    async def model_metadata(
        self, request: ModelMetadataRequest, context: Context
    ) -> ModelMetadataResponse:
        """Inputs and outputs; the reserved inputs are every model's and stand in the parameters."""
        return self._inventory.model(request.name, request.version)

    async def model_config(
        self, request: ModelConfigRequest, context: Context
    ) -> ModelConfigResponse:
        """How the model is served."""
        return self._inventory.config(request.name, request.version)

    async def statistics(
        self, request: ModelStatisticsRequest, context: Context
    ) -> ModelStatisticsResponse:
        """What loaded versions have done."""
        return self._inventory.statistics(request.name, request.version)

    async def index(
        self, request: RepositoryIndexRequest, context: Context
    ) -> RepositoryIndexResponse:
        """What is to be served."""
        return self._inventory.index(is_ready_only=request.ready)

    async def load(self, request: Any, context: Context) -> Any:
        """Loading and unloading: refused."""
        raise NotOffered(LOADING_IS_THE_REGISTRYS)

    def handlers(self, infer: Any) -> Any:
        """Handlers for a grpc.aio server; ``infer`` answers ModelInfer in serialized messages."""
        methods = {
            "ServerLive": _unary(self.live, ServerLiveRequest),
            "ServerReady": _unary(self.ready, ServerReadyRequest),
            "ServerMetadata": _unary(self.server_metadata, ServerMetadataRequest),
            "ModelReady": _unary(self.model_ready, ModelReadyRequest),
            "ModelMetadata": _unary(self.model_metadata, ModelMetadataRequest),
            "ModelConfig": _unary(self.model_config, ModelConfigRequest),
            "ModelStatistics": _unary(self.statistics, ModelStatisticsRequest),
            "RepositoryIndex": _unary(self.index, RepositoryIndexRequest),
            "RepositoryModelLoad": _unary(self.load, RepositoryModelLoadRequest),
            "RepositoryModelUnload": _unary(self.load, RepositoryModelUnloadRequest),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._streams.infer),
        }
        if infer is not None:
            methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(infer)
        return grpc.method_handlers_generic_handler(INFERENCE_SERVICE, methods)


def _unary(call: Any, request: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
