"""The ledger's past, and backtests over it."""
