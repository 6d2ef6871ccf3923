"""The inference service beside its peers, in one run, every answer checked."""
