"""Predictions over the Open Inference Protocol, remembered before they are given."""

import os

# Before numpy is imported: a process that is forked has one thread, and each model runs on one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
