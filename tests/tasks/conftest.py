"""What tests of tasks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.groups import unhurried
from tests.harness.shop import listening
from tests.tasks.ears import HEARD, Ears

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes no body long here."""
    unhurried(monkeypatch)


@pytest.fixture
def ears() -> Iterator[Ears]:
    """Listens to the five signals; each is heard with its task, its state or exception, and its run's key."""
    ears = Ears()

    def receiver(kind: str) -> Callable[..., None]:
        def receive(sender: Any = None, **told: Any) -> None:
            what = told.get("state") or told.get("result") or told.get("exception") or told.get("reason") or ""
            key = sender.request.get("argsrepr", "")
            ears.heard.append((kind, sender.name, key, str(what)))

        return receive

    with listening(**{kind: receiver(kind) for kind in HEARD}):
        yield ears
