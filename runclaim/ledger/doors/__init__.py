"""What the API, the command line, webhooks and metrics ask: tokens, keys, pages, registered flows, windows, figures."""
