"""Speed, measured as ratios: runclaim, bare Celery and others do the same work in turn, on one broker and one pool."""
