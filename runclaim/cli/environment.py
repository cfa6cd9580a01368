"""The names of the variables that commands read from the environment."""

from __future__ import annotations

from typing import Final

from runclaim.local_folder import APP, LEDGER_URL

__all__ = ["API_URL", "APP", "LEDGER_URL", "TOKEN"]

API_URL: Final = "RUNCLAIM_API_URL"
TOKEN: Final = "RUNCLAIM_TOKEN"  # noqa: S105 - the name of the variable that has it
