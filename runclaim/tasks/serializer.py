"""What runclaim's messages are written with: as the application's own, such as signed ones, but never pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kombu import serialization

if TYPE_CHECKING:
    from celery import Celery

_TYPES: Final[dict[str, str]] = serialization.registry.name_to_type  # type: ignore[attr-defined]
#: By names and by content types, as `accept_content` takes them: who can write such a message runs code.
PICKLES: Final = frozenset({"pickle", "application/x-python-serialize"})


class Serializer:
    """The attribute `serializer` of a task. Looked up when a message is sent: the application configures late."""

    def __get__(self, task: Any, owner: Any) -> str:
        """The name of a serializer."""
        return serializer(owner.app)


def serializer(app: Celery) -> str:
    """The application's `task_serializer`; JSON where that is pickle."""
    name = str(app.conf.task_serializer)
    return "json" if name in PICKLES else name


def is_readable(app: Celery) -> bool:
    """Whether the application's workers accept what runclaim sends. `accept_content` has names or content types."""
    accepted = {_TYPES.get(each, each) for each in app.conf.accept_content or ()}
    name = serializer(app)
    return _TYPES.get(name, name) in accepted
