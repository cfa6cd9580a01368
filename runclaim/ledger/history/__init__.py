"""What is left of the past: erased runs, subjects without runs, and a ledger that was restored to an earlier point."""
