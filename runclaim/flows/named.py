"""What an application declared, by name: a name that somebody outside made up is bad input, and no KeyError."""

from __future__ import annotations

from typing import Any

from runclaim.errors import InputError


class Named(dict[str, Any]):
    """Name → flow or webhook; `what` is the field that the error names."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def __missing__(self, name: str) -> Any:
        raise InputError(self._what, f"there is no {name!r:.100}; this app has {', '.join(self) or 'none'}")
