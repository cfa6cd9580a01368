"""A stand-in for a forge: a few endpoints in the shape of GitHub's REST API, a memory, and a bad day on demand."""
