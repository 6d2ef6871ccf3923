"""Asks the service in this container by gRPC whether it serves; ends with 0 or 1.

A service with TLS is asked over TLS if HOMEOSTAT_TLS_CA_FILE says who signed its certificate, which
must then name 127.0.0.1 too.
"""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from homeostat.channels import ChannelSecurity

ANSWER_SECONDS = 3.0


def is_serving(address: str) -> bool:
    """Whether the server at host:port answers that it serves."""
    credentials = ChannelSecurity.from_environment().credentials()
    with (
        grpc.insecure_channel(address)
        if credentials is None
        else grpc.secure_channel(address, credentials)
    ) as channel:
        request = health_pb2.HealthCheckRequest()
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=ANSWER_SECONDS)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    setting = os.environ[f"HOMEOSTAT_{os.environ['SERVICE'].upper()}_GRPC_ADDRESS"]
    sys.exit(0 if is_serving(f"127.0.0.1:{setting.rpartition(':')[2]}") else 1)
