"""Where an application declares its flows, webhooks, actions and resolvers, to report what is declared twice."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import NoReturn, Self

from runclaim.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the application's code, and the name under which its module was imported."""

    module: str
    file: str
    line: int

    @classmethod
    def here(cls) -> Self:
        """The line that has called into runclaim."""
        frame = sys._getframe(1)  # noqa: SLF001 - as warnings and logging find their callers
        while frame.f_back is not None and _module(frame).partition(".")[0] == "runclaim":
            frame = frame.f_back
        return cls(_module(frame), frame.f_code.co_filename, frame.f_lineno)


def _module(frame: object) -> str:
    return str(getattr(frame, "f_globals", {}).get("__name__", ""))


class Places:
    """Of one application's declarations."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], Place] = {}

    def note(self, what: str, name: str) -> None:
        """Remember that it was declared here."""
        self._places[what, name] = Place.here()

    def refuse(self, what: str, name: str) -> NoReturn:
        """Raises: DeclarationError that says where the first of the name is, and what to do about this one."""
        article = "an" if what[0] in "aeiou" else "a"
        first, second = self._places.get((what, name)), Place.here()
        if first is None:
            raise DeclarationError(f"this app already has {article} {what} {name}; give the second another name")
        where = f"{first.file}:{first.line}"
        if (first.file, first.line) != (second.file, second.line):
            there = f"declared in {first.module} ({where})"
            raise DeclarationError(
                f"this app already has {article} {what} {name}, {there}; give the second another name"
            )
        if first.module == second.module:
            raise DeclarationError(
                f"the {what} {name} ({where}) is declared again because its module {first.module} runs a second time;"
                " restart the process instead of reloading the module"
            )
        raise DeclarationError(
            f"the {what} {name} ({where}) is declared twice, as its file is imported under two names,"
            f" {first.module} and {second.module}: import it under one"
        )
