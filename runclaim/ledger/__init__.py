"""The ledger: one verb per module, on the caller's connection, never committing."""
