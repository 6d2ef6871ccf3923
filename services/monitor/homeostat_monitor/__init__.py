"""The monitor service."""

import os

# Before numpy is imported: products here are small, threads that wait for each other cost more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
