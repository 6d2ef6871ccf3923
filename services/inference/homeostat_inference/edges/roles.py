"""Which role each method of this service needs, over either protocol."""

from homeostat_kit.auth import Roles, roles_of
from homeostat_kit.progress import ROLES as PROGRESS_ROLES

INFERENCE_SERVICE = "inference.GRPCInferenceService"
TRUTH_SERVICE = "homeostat.inference.v1.TruthService"
SERVING_SERVICE = "homeostat.inference.v1.ServingService"

ROLES: Roles = {
    **roles_of(
        INFERENCE_SERVICE,
        open=["ServerLive", "ServerReady"],
        read=[
            "ServerMetadata",
            "ModelReady",
            "ModelMetadata",
            "ModelConfig",
            "ModelStatistics",
            "RepositoryIndex",
        ],
        predict=["ModelInfer", "ModelStreamInfer"],
        manage=["RepositoryModelLoad", "RepositoryModelUnload"],
    ),
    # A promise about time holds for every client's rows.
    **roles_of(TRUTH_SERVICE, predict=["RecordOutcomes"], manage=["AdvanceWatermark"]),
    **roles_of(SERVING_SERVICE, read=["GetServing"], manage=["ReleaseQuarantine"]),
    **PROGRESS_ROLES,
}
