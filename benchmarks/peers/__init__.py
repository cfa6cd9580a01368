"""Runclaim as one more peer of a bench that gives DBOS, Procrastinate, PGQueuer, Oban and others the same work."""
