"""The names of the variables that commands read from the environment."""

from __future__ import annotations

from typing import Final

#: Of a Celery application's module, as for `celery -A`.
APP: Final = "RUNCLAIM_APP"
API_URL: Final = "RUNCLAIM_API_URL"
TOKEN: Final = "RUNCLAIM_TOKEN"  # noqa: S105 - the name of the variable that has it
LEDGER_URL: Final = "RUNCLAIM_DATABASE_URL"
