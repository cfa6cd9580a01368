"""What tests of flows share."""

from __future__ import annotations

import pytest

from tests.harness.groups import unhurried


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes no body long here; the tests of long bodies say so."""
    unhurried(monkeypatch)
