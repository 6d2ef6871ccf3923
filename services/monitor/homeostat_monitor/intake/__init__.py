"""Blocks from the broker into sums, shared by partition."""
