"""The tests' application on a SQLite that can be told to be full: the file `pages` limits the ledger's size."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from tests.harness import Stage, build

if TYPE_CHECKING:
    from runclaim.database import Database

#: What SQLite itself allows.
NO_LIMIT = 1 << 30


def limit(database: Database, pages: Path) -> None:
    """Before each of its transactions the database allows as many pages as the file says."""

    def set_limit(raw: Any, *_: Any) -> None:
        allowed = int(pages.read_text()) if pages.exists() else NO_LIMIT
        raw.execute(f"PRAGMA max_page_count = {allowed}")

    event.listen(database.engine, "checkout", set_limit)


def limited(told: dict[str, Any]) -> Stage:
    """The application, its ledger limited by `pages` in its folder."""
    made = build(told)
    limit(made.runs.ledger.database, Path(told["folder"]) / "pages")
    return made


if "HARNESS" in os.environ:
    stage = limited(json.loads(os.environ["HARNESS"]))
    app = stage.app
