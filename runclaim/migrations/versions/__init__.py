"""The migrations, one script for each change of the schema."""
