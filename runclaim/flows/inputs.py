"""
Typed inputs: from keyword arguments to a checked value, to JSON, and back in the worker.

msgspec converts dataclasses, TypedDicts and its own Structs; a pydantic model converts itself, and pydantic
is imported by nobody but the application that uses it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints, is_typeddict

import msgspec

from runclaim.errors import DeclarationError, InputError
from runclaim.keys import dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

InputT = TypeVar("InputT")

#: Keyword arguments of `enqueue` itself, which an input's fields may not take.
RESERVED = frozenset({"session"})


class InputType(Generic[InputT]):
    """The declared type of a flow's input and its field names, in order."""

    def __init__(self, declared: type[InputT]) -> None:
        self.declared = declared
        self._is_pydantic = hasattr(declared, "model_validate") and hasattr(declared, "model_fields")
        self.fields = self._field_names()
        if taken := sorted(RESERVED & set(self.fields)):
            raise DeclarationError(f"{declared.__name__}.{taken[0]}: enqueue has an argument of that name; rename it")

    def _field_names(self) -> tuple[str, ...]:
        declared: Any = self.declared
        if self._is_pydantic:
            return tuple(declared.model_fields)
        if is_typeddict(declared):
            return tuple(get_type_hints(declared))
        if isinstance(declared, type) and (dataclasses.is_dataclass(declared) or issubclass(declared, msgspec.Struct)):
            return tuple(found.name for found in msgspec.inspect.type_info(declared).fields)  # type: ignore[attr-defined]
        raise DeclarationError(f"the input of a flow is a dataclass, a TypedDict or a pydantic model, not {declared!r}")

    def check(self, given: InputT | Mapping[str, Any]) -> InputT:
        """A value of the declared type. Raises: InputError that names the field that does not fit."""
        declared: Any = self.declared
        if isinstance(given, dict) or is_typeddict(declared):
            return self.load(given)
        if not isinstance(given, declared):
            raise InputError("input", f"is a {type(given).__name__}; pass a {declared.__name__} or its fields by name")
        # Types are checked here and not first in the worker, when the caller is gone.
        return self.load(self.dump(given))

    def dump(self, value: InputT) -> Any:
        """The value as plain JSON data, at most 256 kB of it. Raises: InputError."""
        plain: Any = value.model_dump(mode="json") if self._is_pydantic else self._builtins(value)  # type: ignore[attr-defined]
        dump_json("input", plain)
        return plain

    @staticmethod
    def _builtins(value: Any) -> Any:
        try:
            return msgspec.to_builtins(value)
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise InputError("input", f"is no JSON: {error}") from error

    def load(self, plain: Any) -> InputT:
        """The value that `plain` describes. Raises: InputError."""
        declared: Any = self.declared
        if isinstance(plain, dict) and (unknown := [name for name in plain if name not in self.fields]):
            raise InputError(str(unknown[0]), f"is no field of {declared.__name__}; it has {', '.join(self.fields)}")
        try:
            found: InputT = (
                declared.model_validate(plain) if self._is_pydantic else msgspec.convert(plain, declared, strict=True)
            )
        except msgspec.ValidationError as error:
            field, problem = _located(str(error))
            raise InputError(field, problem) from error
        except ValueError as error:
            raise InputError(*_pydantic_place(error)) from error
        return found


def _located(message: str) -> tuple[str, str]:
    """Msgspec's `Expected int, got str - at `$.number`` as the field and the problem."""
    problem, _, place = message.partition(" - at `$")
    if place:
        return place.rstrip("`").lstrip(".") or "input", problem
    return problem.split("`")[1] if "missing required field" in problem else "input", problem


def _pydantic_place(error: ValueError) -> tuple[str, str]:
    found = error.errors()[0] if hasattr(error, "errors") else {}
    return ".".join(str(part) for part in found.get("loc", ("input",))) or "input", str(found.get("msg", error))
