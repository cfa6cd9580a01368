"""The ledger: one verb a module, on the caller's connection, never committing."""
