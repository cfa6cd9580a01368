"""What the API and the command line ask: tokens, idempotency keys, pages, registered flows."""
