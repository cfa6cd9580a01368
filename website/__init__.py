"""How the pages of `docs/` become a site, `llms.txt` and the drawn way of a run. Standard library only."""
