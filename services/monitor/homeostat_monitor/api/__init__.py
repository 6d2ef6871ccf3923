"""The monitor's gRPC services."""
