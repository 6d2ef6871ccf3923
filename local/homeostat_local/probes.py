"""Whether a service says that it serves: gRPC health on its port."""

import contextlib
import socket

from homeostat_local.ports import split_address

_CONNECT_SECONDS = 0.5
_ANSWER_SECONDS = 1.0


def is_serving(address: str) -> bool:
    """Whether gRPC health answers SERVING for the server as a whole, within about a second."""
    # A channel to a port on which nobody listens yet would back off for a second: knock first.
    with contextlib.suppress(OSError):
        socket.create_connection(split_address(address), timeout=_CONNECT_SECONDS).close()
        return _says_serving(address)
    return False


def _says_serving(address: str) -> bool:
    import grpc  # noqa: PLC0415 - heavy, and not needed before a service listens
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    from homeostat.channels import ChannelSecurity  # noqa: PLC0415

    credentials = ChannelSecurity.from_environment().credentials()
    with (
        grpc.insecure_channel(address)
        if credentials is None
        else grpc.secure_channel(address, credentials)
    ) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=""), timeout=_ANSWER_SECONDS
            )
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
