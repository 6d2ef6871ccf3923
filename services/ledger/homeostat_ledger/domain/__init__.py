"""What the ledger remembers and how truth settles; no I/O."""
