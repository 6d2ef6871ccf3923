"""The index of the memory, in Postgres."""
