"""What users write, and what runs it: one folder per concern; their order is in pyproject.toml."""
