"""What becomes of ended runs: erased, and the rows of subjects without runs deleted."""
