"""Calls to the outside world: what is declared, what hooks plan, and what sends them."""
