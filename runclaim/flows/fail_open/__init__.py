"""Flows that go on while the ledger is away: only those that declare it come here."""
