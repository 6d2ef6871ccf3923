"""Serving, batching, keeping: use cases over ports."""
