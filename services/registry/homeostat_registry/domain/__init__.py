"""Facts and decisions of the registry; no I/O."""
