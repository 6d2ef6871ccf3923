"""Models, versions, history and audit in PostgreSQL: a change and its events in one transaction."""

from homeostat_registry.store.book import PostgresBook

__all__ = ["PostgresBook"]
