"""What is between the ledger and SQLAlchemy: engines, prepared statements, row sets, time, errors, patience."""
