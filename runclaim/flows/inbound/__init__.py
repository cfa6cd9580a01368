"""Events from outside: webhooks, and the runs and phases that they start."""
