"""The rows themselves, as Parquet files."""
