"""Segments: some of the rows, named by an expression or found by their error and drift."""
