"""Windows of event time: rows as additive sums, and the reference beside them."""
