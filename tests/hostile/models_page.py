"""The reference page of hostile models, from the corpus that the tests register."""

from tests.hostile.models import HOSTILE_MODELS, OK, HostileModel

_LEAD = """# Hostile models

What RegisterVersion answers to model files made to do harm. Each line is uploaded to one running
registry by `tests/integration/registry/test_hostile_models.py`, in this order; the registry answers
after each, and judges a good model at the end. The files are made by `tests/hostile/models.py`. A
status text has at most 1,500 characters of the file's making, and nothing in it that a terminal
obeys.

Models that pass every trial and do harm only on certain inputs are the inference server's to
survive: `tests/hostile/runtime_models.py`.

| name | what | answer | the text says |
|---|---|---|---|
"""


def models_page() -> str:
    """docs/reference/hostile-models.md, without the note on top."""
    return _LEAD + "".join(map(_row, HOSTILE_MODELS))


def _row(each: HostileModel) -> str:
    says = "harmless: it becomes a version" if each.code == OK else each.words
    return f"| {each.name} | {each.what} | {each.code} | {says} |\n"
