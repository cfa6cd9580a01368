"""The trial of the review worker: what breaks things, what watches from outside, and how it is told."""
