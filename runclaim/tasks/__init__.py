"""Celery tasks: one for each phase, and the few that keep the ledger going."""
