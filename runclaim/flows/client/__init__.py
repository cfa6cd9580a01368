"""What callers do with runs: enqueue, find, wait, change, signal."""
