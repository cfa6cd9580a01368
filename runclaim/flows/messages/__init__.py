"""Messages: what names a run to a worker, and how it gets to the broker."""
