"""A service that does nothing but answer health: for tests of what starts and stops services.

`python -m tests.support.standin_service NAME [--deaf]`; deaf ones do not leave on SIGTERM.
"""

import os
import signal
import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


def main() -> None:
    name = sys.argv[1].upper()
    leave = threading.Event()
    deaf = "--deaf" in sys.argv
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: leave.set())
    server = grpc.server(futures.ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(os.environ[f"HOMEOSTAT_{name}_GRPC_ADDRESS"])
    server.start()
    settings = {key: value for key, value in os.environ.items() if key.startswith("HOMEOSTAT_")}
    print("serving", *sorted(settings), flush=True)
    leave.wait()
    server.stop(None)


if __name__ == "__main__":
    main()
