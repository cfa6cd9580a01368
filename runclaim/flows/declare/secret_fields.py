"""
Which fields of a flow's input may hold a secret, and which may name one for the worker to look up.

Both are refused unless the flow declares them. Everyone who may enqueue chooses what an input says: a reference in a
field that is not meant for one would make the worker send any of its secrets to the address in that field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Self

from runclaim.errors import DeclarationError, InputError, SecretUnavailable
from runclaim.flows.declare.secret_references import OWN, parts
from runclaim.secrets import refuse_secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_PREFIX: Final = "secret:"


@dataclass(frozen=True, slots=True)
class SecretFields:
    """Fields are dotted names without indexes: `auth.token` for the `token` of each item of `auth`, too."""

    #: Every field, or these, may hold what looks like a secret.
    allowed: bool | tuple[str, ...] = False
    #: Field → patterns of the references that it may hold, as `fnmatch` has them: `secret:env:FORGE_*`.
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def declared(
        cls,
        fields: Collection[str],
        allowed: bool | Sequence[str],  # noqa: FBT001 - as a flow declares it
        references: Mapping[str, str | Sequence[str]],
    ) -> Self:
        """From what a flow declares; `fields` are those of its input. Raises: DeclarationError."""
        names = allowed if isinstance(allowed, bool) else _texts(allowed)
        patterns = {name: _texts(each) for name, each in references.items()}
        for name in (*(() if isinstance(names, bool) else names), *patterns):
            if name.partition(".")[0] not in fields:
                raise DeclarationError(f"{name} is not a field of the input; it has {', '.join(fields)}")
        for pattern in (each for some in patterns.values() for each in some):
            _check_pattern(pattern)
        return cls(names, patterns)

    def check(self, plain: Any) -> None:
        """Refuse what an input, as JSON data, may not hold. Raises: InputError with the field, and never the secret."""
        for name, reference in _references(plain):
            if not self._may_name(name, reference):
                raise InputError(
                    name or "input",
                    "is a reference to a secret that the flow does not declare for this field;"
                    f' declare it: runs.flow(…, secrets={{"{name or "field"}": "secret:env:NAME"}})',
                )
        if self.allowed is not True:
            refuse_secrets("input", plain, except_in=self.allowed or ())

    def check_made(self, **values: Any) -> None:
        """Refuse what is derived from an input, or comes with it, by its name. Raises: InputError."""
        if self.allowed is not True:
            for name, value in values.items():
                if value is not None:
                    refuse_secrets(name, value)

    def may_resolve(self, reference: str, plain: Any) -> bool:
        """Whether a body may look the reference up: one that its input holds has to be declared for that field."""
        return all(self._may_name(name, reference) for name, each in _references(plain) if each == reference)

    def _may_name(self, name: str, reference: str) -> bool:
        return any(fnmatchcase(reference, pattern) for pattern in self.references.get(name, ()))


def refuse_references(what: str, plain: Any) -> None:
    """Refuse JSON data that nothing can declare references for. Raises: InputError."""
    for name, _ in _references(plain):
        raise InputError(
            name or what, f"is a reference to a secret; only a flow's input may hold one, and a {what} is not"
        )


def _texts(given: str | Sequence[str]) -> tuple[str, ...]:
    texts = (given,) if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
        raise DeclarationError(f"{given!r} is neither text nor a list of texts")
    return tuple(texts)


def _check_pattern(pattern: str) -> None:
    try:
        resolver, name = parts(pattern)
    except SecretUnavailable:
        resolver, name = "", ""
    if not resolver or name == "*":
        raise DeclarationError(
            f"{pattern!r} is not a pattern of references: write secret:env:NAME, or secret:env:FORGE_* for several"
        )
    if resolver == "env" and name.startswith(OWN):
        raise DeclarationError(f"{pattern} would expose a setting of runclaim itself")


def _references(plain: Any) -> Iterator[tuple[str, str]]:
    """The dotted name of the field and the reference, for every text of JSON data that is one."""
    waiting: list[tuple[str, Any]] = [("", plain)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            if value.startswith(_PREFIX):
                yield name, value
        elif isinstance(value, dict):
            for label, item in value.items():
                if isinstance(label, str) and label.startswith(_PREFIX):
                    yield name, label
                if isinstance(item, str | dict | list):
                    waiting.append((f"{name}.{label}" if name else str(label), item))
        elif isinstance(value, list | tuple):
            waiting.extend((name, item) for item in value if isinstance(item, str | dict | list))
