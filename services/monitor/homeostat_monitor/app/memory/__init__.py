"""The ports' transaction without a database, for the past played again."""
