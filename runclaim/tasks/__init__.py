"""Celery tasks: one for each phase, and the three that keep the ledger going."""
