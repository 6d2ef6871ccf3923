"""Fixtures that every test may use."""

pytest_plugins = ["tests.support.broker", "tests.support.database", "tests.support.kafka"]
