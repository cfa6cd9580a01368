"""The previous release beside this one: its own tests on today's tables, and a fleet of both under faults."""
