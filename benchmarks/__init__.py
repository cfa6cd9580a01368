"""Speed, measured as ratios: runclaim and bare Celery do the same work in turn, on one broker and one pool."""
