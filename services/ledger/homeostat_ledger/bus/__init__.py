"""The topics' edge: records in."""
