"""
The round trip of a value through the ledger: what is read has to be what was handed over.

A type that is written without an error may still be read as something else: a subclass as its base, a date as text, a
model whose validator changes what it has made already. The error is raised where the value is passed, not where it is
read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from types import NoneType
from typing import Any, Final

import msgspec

from runclaim.errors import InputError
from runclaim.secrets import redact

#: What JSON has words for: each is read as what it was.
ATOMS: Final = frozenset({str, int, float, bool, NoneType})
_CANONICAL: Final = json.JSONEncoder(sort_keys=True)
_MISSING: Final = object()
_LONGEST: Final = 60


def builtins_of(value: Any) -> Any:
    """`value` as what JSON is made of. Raises: TypeError, ValueError, RecursionError, msgspec.MsgspecError."""
    return msgspec.to_builtins(_spelled_out(value), str_keys=True)


def _spelled_out(value: Any) -> Any:
    """With dataclasses as dicts of all their fields: those that msgspec made lack fields at their defaults."""
    kind: Any = type(value)
    if kind in ATOMS:
        return value
    if (names := _dataclass_fields(kind)) is not None:
        return {name: _spelled_out(getattr(value, name)) for name in names}
    if kind is list or kind is tuple:
        return [_spelled_out(each) for each in value]
    if isinstance(value, dict):
        return {name: _spelled_out(each) for name, each in value.items()}
    if isinstance(value, AbstractSet):
        # A set has no order, the fingerprint of an input has to have one; and not all members can be compared.
        return sorted(map(builtins_of, value), key=_CANONICAL.encode)
    return value


def require_same(field: str, given: Any, read: Any) -> None:
    """
    Nothing when what is `read` is what was `given`.

    Raises: InputError that names the first place below `field` that is not, and shows no secret.
    """
    if _equal(given, read):
        return
    try:
        difference = _difference(field, given, read)
    except RecursionError:
        raise InputError(field or "input", "is nested too deeply to check that it reads back unchanged") from None
    if difference is not None:
        place, old, new = difference
        raise InputError(redact(place.lstrip(".")) or "input", _problem(old, new))


def require_used(given: Any, value: Any, place: str = "") -> None:
    """Raises: InputError that names a field of `given` that `value`, which was made from it, has no place for."""
    if isinstance(given, Mapping):
        kind: Any = type(value)
        names = getattr(kind, "__struct_encode_fields__", None) or fields_of(kind)
        is_short = isinstance(value, Mapping) and len(value) < len(given)
        for name, each in given.items():
            if (names and name not in names) or (is_short and name not in value):
                raise InputError(
                    redact(f"{place}.{name}".lstrip(".")), f"is not a field of {kind.__name__}; leave it out"
                )
            if type(each) not in ATOMS:
                inner = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
                require_used(each, inner, f"{place}.{name}")
    elif isinstance(given, list | tuple) and isinstance(value, list | tuple) and len(given) == len(value):
        for index, (each, inner) in enumerate(zip(given, value, strict=True)):
            require_used(each, inner, f"{place}[{index}]")


def _problem(old: Any, new: Any) -> str:
    if new is _MISSING:
        return "is not stored, so it would be missing when read back"
    if old is _MISSING:
        return "is missing here, but would appear when read back"
    if type(old) is not type(new):
        return (
            f"is of type {type(old).__name__} and would be read as {type(new).__name__};"
            " declare the type that it has, or pass a value of the declared type"
        )
    return (
        f"is {_shown(old)} and would be read as {_shown(new)}: a validator, a serializer or __post_init__ of its type"
        " changes values that are already valid"
    )


def _shown(value: Any) -> str:
    text = redact(repr(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _equal(given: Any, read: Any) -> bool:
    try:
        return bool(given == read) and isinstance(given, bool) is isinstance(read, bool)
    except Exception:  # noqa: BLE001 - the application's own equality; the parts are compared then
        return False


def _difference(place: str, given: Any, read: Any) -> tuple[str, Any, Any] | None:
    """The first place where the two differ and what is there; objects without an equality are their fields."""
    if given is read or _equal(given, read):
        return None
    parts = _parts(given, read)
    if parts is None:
        return place, given, read
    for label, old, new in parts:
        if deeper := _difference(place + label, old, new):
            return deeper
    # Containers differ although no part does only where one of them has more to it than its parts.
    kind: Any = type(given)
    return None if fields_of(kind) else (place, given, read)


def _parts(given: Any, read: Any) -> list[tuple[str, Any, Any]] | None:
    """The parts of two values of one kind side by side; `None` for what has no parts."""
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        names = [*given, *(name for name in read if name not in given)]
        return [(f".{name}", given.get(name, _MISSING), read.get(name, _MISSING)) for name in names]
    if type(given) is not type(read):
        return None
    if isinstance(given, list | tuple):
        sides = [[*each, *[_MISSING] * (max(len(given), len(read)) - len(each))] for each in (given, read)]
        return [(f"[{index}]", old, new) for index, (old, new) in enumerate(zip(*sides, strict=True))]
    kind: Any = type(given)
    own = fields_of(kind)
    return [(f".{name}", getattr(given, name, _MISSING), getattr(read, name, _MISSING)) for name in own] or None


@cache
def _dataclass_fields(kind: Any) -> tuple[str, ...] | None:
    return tuple(each.name for each in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


@cache
def fields_of(kind: Any) -> tuple[str, ...]:
    """The fields of a dataclass, a Struct, an attrs class or a pydantic model, private ones too; else none."""
    if (names := _dataclass_fields(kind)) is not None:
        return names
    if hasattr(kind, "model_fields"):
        return (*kind.model_fields, *getattr(kind, "__private_attributes__", ()))
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(each.name for each in kind.__attrs_attrs__)
    return tuple(getattr(kind, "__struct_fields__", ()))
