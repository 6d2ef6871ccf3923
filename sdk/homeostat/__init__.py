"""What users import: contracts, client, command line."""

__version__ = "0.1.0"
