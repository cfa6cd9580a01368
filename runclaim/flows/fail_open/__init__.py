"""Flows that continue while the ledger is away: only those that declare it come here."""
