"""Fixtures that every test may use."""

from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("homeostat", deadline=None)
settings.load_profile("homeostat")

pytest_plugins = [
    "tests.support.broker",
    "tests.support.database",
    "tests.support.kafka",
    "tests.support.kserve",
]
