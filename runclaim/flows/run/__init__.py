"""A delivery in a worker: claim what a message names, run the bodies, record how they ended."""
