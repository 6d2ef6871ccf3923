"""Domain objects as protobuf messages and back."""
