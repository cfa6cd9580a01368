"""An action's life: planned, claimed, settled, decided by a person."""
