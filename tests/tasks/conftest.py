"""What tests of tasks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.shop import listening
from tests.tasks.ears import HEARD, Ears

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
