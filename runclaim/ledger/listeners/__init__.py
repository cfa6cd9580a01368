"""What listeners are told: the tail of the journal, turns, deliveries, totals."""
