"""What beat asks for: what is due is dispatched, what is finished is purged."""
