"""What is published: the pins with their hashes, the packages, what they are made of, and the proof that they work."""
