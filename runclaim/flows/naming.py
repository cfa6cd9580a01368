"""Where a flow's keys and subjects come from: a template of its input's fields, or a function of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from runclaim.errors import DeclarationError, InputError
from runclaim.keys import Template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

InputT = TypeVar("InputT")


class Source(Generic[InputT]):
    """What makes the `what` (key or subject) of a flow's inputs. `template` is `None` for a function."""

    def __init__(self, given: str | Callable[[InputT], str], fields: Iterable[str], *, what: str, flow: str) -> None:
        self._what, self._flow = what, flow
        self.template = Template(given, fields, what=what) if isinstance(given, str) else None
        self._function = None if isinstance(given, str) else given
        if self._function is not None and not callable(self._function):
            raise DeclarationError(f"the {what} of flow {flow} is text such as '{{field}}' or a function: {given!r}")

    def parts(self, value: InputT) -> list[str]:
        """The text of an input in the parts that are told apart. Raises: InputError."""
        if self.template is not None:
            fields: Mapping[str, Any] = value if isinstance(value, dict) else _Fields(value)
            return self.template.parts(fields)
        text = self._function(value) if self._function is not None else None
        if not isinstance(text, str):
            raise InputError(
                self._what, f"the {self._what} function of flow {self._flow} returned {text!r:.40}; return text"
            )
        return [text]


class _Fields(dict[str, Any]):
    """The attributes of an input as a mapping."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, name: str) -> Any:
        return getattr(self._value, name)
