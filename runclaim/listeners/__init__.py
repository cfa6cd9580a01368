"""Who is told of what happened: the totals, Python receivers, and webhooks out."""
