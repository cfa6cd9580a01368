"""A small review worker: what changed between two commits, what is wrong with it, and a summary."""
