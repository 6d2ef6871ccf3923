"""Use cases of the ledger; the world comes in as ports."""
