"""
What names a run: its key and its subject, made from the input, and a key's text read backwards.

A template's parts are told apart by their lengths; its text alone may have several readings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from runclaim.errors import DeclarationError, InputError
from runclaim.keys import RunKey, Template, check_text, run_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

InputT = TypeVar("InputT")

#: More readings of one key's text are a mistake: a template without anything between its fields.
_MOST_READINGS: Final = 64


class Naming(Generic[InputT]):
    """How the runs of a flow are named. `fields` are those of its input. Raises: DeclarationError."""

    def __init__(
        self,
        flow: str,
        fields: Iterable[str],
        *,
        key: str | Callable[[InputT], str],
        subject: str | Callable[[InputT], str] | None,
    ) -> None:
        self._flow, self._fields = flow, tuple(fields)
        self.key = self._template(key, "key")
        self.subject = None if subject is None else self._template(subject, "subject")

    def _template(self, given: str | Callable[[InputT], str], what: str) -> Template | Callable[[InputT], str]:
        if isinstance(given, str):
            return Template(given, self._fields, what=what)
        if not callable(given):
            raise DeclarationError(
                f"the {what} of flow {self._flow} must be text such as '{{field}}' or a function, not {given!r}"
            )
        return given

    def key_of(self, value: InputT) -> RunKey:
        """The run key of an input. Raises: InputError."""
        return run_key(self._parts(self.key, value, "key"))

    def subject_of(self, value: InputT) -> str | None:
        """The subject of an input, or `None` when the flow has none. Raises: InputError."""
        if self.subject is None:
            return None
        return check_text("subject", "".join(self._parts(self.subject, value, "subject")))

    def _parts(self, made: Template | Callable[[InputT], str], value: InputT, what: str) -> list[str]:
        if isinstance(made, Template):
            fields: Mapping[str, Any] = value if isinstance(value, dict) else _Fields(value)
            return made.parts(fields)
        text = made(value)
        if not isinstance(text, str):
            raise InputError(what, f"the {what} function of flow {self._flow} returned {text!r:.40}; return text")
        return [text]

    def readings(self, text: str) -> list[RunKey]:
        """The keys that a text can stand for. Raises: InputError when they are too many."""
        check_text("key", text)
        made = self.key
        ways = made.readings(text, at_most=_MOST_READINGS + 1) if isinstance(made, Template) else [(text,)]
        if len(ways) > _MOST_READINGS:
            raise InputError("key", f"can be read in more than {_MOST_READINGS} ways; use the id of the run instead")
        return [run_key(parts) for parts in ways]


class _Fields(dict[str, Any]):
    """The attributes of an input as a mapping."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, name: str) -> Any:
        return getattr(self._value, name)
