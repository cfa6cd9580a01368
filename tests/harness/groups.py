"""Groups of claims on a busy machine: no body is long there but in the tests of long bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runclaim.flows.run import group, pace

if TYPE_CHECKING:
    import pytest


def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a group is given back, or settled before the rest, because the machine is slow."""
    for module, name in ((group, "GROUP_SECONDS"), (pace, "GROUP_SECONDS"), (group, "_SETTLE_SECONDS")):
        monkeypatch.setattr(module, name, 60.0)
