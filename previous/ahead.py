"""
A plugin for the tests of the previous release: wherever they make tables, today's release makes them.

Loaded by `-p ahead` with this folder on the path, and nothing else of today's release.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any

from runclaim import migrations


def _upgrade(database: Any, *_how: Any, **_more: Any) -> tuple[str | None, str]:
    """What `runclaim db upgrade` of today does. Raises: AssertionError where that leaves no newer tables."""
    before = migrations.current(database)
    url = database.url.render_as_string(hide_password=False)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RUNCLAIM_", "PYTHONPATH"))}
    command = [os.environ["PREVIOUS_RUNCLAIM"], "db", "upgrade"]
    done = subprocess.run(
        command, cwd=os.environ["PREVIOUS_ROOT"], env=env | {"RUNCLAIM_DATABASE_URL": url}, capture_output=True,
        text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(done.stderr)
    after = migrations.current(database)
    if after is None or after <= migrations.HEAD:
        raise AssertionError(f"today's tables are at {after}, which is no newer than {migrations.HEAD}")
    return before, after


migrations.upgrade = _upgrade
