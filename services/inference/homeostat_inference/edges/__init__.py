"""Doors to the world: gRPC, files, the broker, the registry, onnxruntime."""
