"""What users write, and what runs it: flows, phases, contexts, the runner and the keeper of leases."""
