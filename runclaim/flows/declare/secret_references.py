"""
References to secrets, `secret:env:NAME`: inputs carry them, and an attempt resolves them when it needs the value.

A value is given to the body and kept nowhere. What an attempt was given is redacted from its error, whatever it
looks like.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from runclaim.errors import SecretUnavailable
from runclaim.secrets import redact

#: From the text after `secret:resolver:` to the value. Raises: LookupError when it has none of that name.
Resolver = Callable[[str], str]

_PREFIX: Final = "secret:"
#: Variables that configure runclaim itself: the ledger's URL, tokens. No reference leads to one.
OWN: Final = "RUNCLAIM_"
_REFERENCE: Final = re.compile(r"secret:([A-Za-z][A-Za-z0-9_.-]{0,99}):([^\x00-\x1f\x7f\ud800-\udfff]{1,512})")
#: A shorter value, or line of one, occurs in ordinary text by accident.
_SHORTEST_VALUE: Final = 4
_SHORTEST_LINE: Final = 8


def env(name: str) -> str:
    """A variable of the worker's environment, but for runclaim's own. Raises: KeyError."""
    if name.upper().startswith(OWN):
        raise KeyError(name)
    return os.environ[name]


BUILT_IN: Final[Mapping[str, Resolver]] = {"env": env}


def parts(reference: Any) -> tuple[str, str]:
    """The resolver and the name. Raises: SecretUnavailable, which does not repeat what may be the secret itself."""
    if not (isinstance(reference, str) and reference.startswith(_PREFIX)):
        raise SecretUnavailable(None, f"this {type(reference).__name__} is not a reference; write secret:env:NAME")
    if (found := _REFERENCE.fullmatch(reference)) is None:
        raise SecretUnavailable(reference, "is not a reference; write secret:env:NAME")
    return found[1], found[2]


class Secrets:
    """What one attempt asks for. Safe to use from several threads of a body."""

    def __init__(self, resolvers: Mapping[str, Resolver], *, may: Callable[[str], bool] = lambda _: True) -> None:
        """With the resolvers there are; `may` says of a reference whether it may be looked up here."""
        self._resolvers, self._may = resolvers, may
        self._lock = threading.Lock()
        self._marks: dict[str, str] = {}

    def get(self, reference: str) -> str:
        """See `Context.secret`; asks the resolver each time."""
        try:
            kind, name = parts(reference)
        except SecretUnavailable:
            if isinstance(reference, str) and not reference.startswith(_PREFIX):
                # Most likely the value, where its reference belongs.
                self._hide(reference, "no reference")
            raise
        if not self._may(reference):
            raise SecretUnavailable(reference, "is in a field of the input that the flow does not declare for secrets")
        if kind not in self._resolvers:
            raise SecretUnavailable(
                reference, f"there is no resolver {kind}; this application has {', '.join(self._resolvers)}"
            )
        try:
            value = self._resolvers[kind](name)
        except LookupError:
            raise SecretUnavailable(reference, f"{kind} has no {name}") from None
        if not isinstance(value, str):
            raise SecretUnavailable(reference, f"the resolver {kind} returned a {type(value).__name__}, not text")
        if not value:
            raise SecretUnavailable(reference, f"{name} is empty")
        self._hide(value, reference)
        return value

    def _hide(self, value: str, reference: str) -> None:
        marks = dict.fromkeys(_forms(value), f"[redacted: {reference}]")
        with self._lock:
            self._marks = marks | self._marks

    def redact(self, text: str) -> str:
        """`text` without the values that were given, and without what looks like a secret."""
        marks = self._marks
        if marks:
            longest_first = sorted(marks, key=len, reverse=True)
            text = re.sub("|".join(map(re.escape, longest_first)), lambda found: marks[found[0]], text)
        return redact(text)


def _forms(value: str) -> set[str]:
    """How a value appears in texts: as it is, line by line, in a repr, in JSON, in a URL."""
    lines = [line.strip() for line in value.splitlines()]
    plain = [value, value.strip(), *(line for line in lines if len(line) >= _SHORTEST_LINE)]
    forms = {
        form
        for each in plain
        for form in (each, repr(each)[1:-1], json.dumps(each)[1:-1], quote(each, errors="replace"))
    }
    return {form for form in forms if len(form) >= _SHORTEST_VALUE}
