"""What a person wants of a model's watch."""
