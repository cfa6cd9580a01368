"""What a body keeps in the ledger: calls made once, sessions, findings."""
