"""
Typed inputs: from keyword arguments to a checked value, to JSON, and back in the worker.

msgspec converts dataclasses, TypedDicts and its own Structs; a pydantic model converts itself, and pydantic
is imported by nobody but the application that uses it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, get_type_hints, is_typeddict

import msgspec

from runclaim.errors import DeclarationError, InputError
from runclaim.flows.schemas import input_schema
from runclaim.flows.shapes import model, strange
from runclaim.keys import dump_json
from runclaim.secrets import redact

InputT = TypeVar("InputT")

#: Keyword arguments of `enqueue` itself, which an input's fields may not take.
RESERVED = frozenset({"session"})


class InputType(Generic[InputT]):
    """The declared type of a flow's input and its field names, in order."""

    def __init__(self, declared: type[InputT]) -> None:
        self.declared = declared
        self._is_pydantic = hasattr(declared, "model_validate") and hasattr(declared, "model_fields")
        self._is_open = self._is_pydantic and declared.model_config.get("extra") == "allow"  # type: ignore[attr-defined]
        self.fields = self._field_names()
        if taken := sorted(RESERVED & set(self.fields)):
            raise DeclarationError(f"{declared.__name__}.{taken[0]}: enqueue has an argument of that name; rename it")

    def _field_names(self) -> tuple[str, ...]:
        declared: Any = self.declared
        if self._is_pydantic:
            return tuple(declared.model_fields)
        is_class = isinstance(declared, type)
        if not (is_typeddict(declared) or (is_class and dataclasses.is_dataclass(declared)) or _is_struct(declared)):
            raise DeclarationError(
                f"the input of a flow is a dataclass, a TypedDict or a pydantic model, not {declared!r}"
            )
        if found := strange(declared):
            raise DeclarationError(
                f"{declared.__name__}.{found} has no JSON form: use text, numbers, lists, dicts, dates or dataclasses,"
                " defined where the module can see them at run time"
            )
        if is_typeddict(declared):
            return tuple(get_type_hints(declared))
        return tuple(field.name for field in msgspec.inspect.type_info(declared).fields)  # type: ignore[attr-defined]

    def check(self, given: InputT | Mapping[str, Any]) -> InputT:
        """A value of the declared type. Raises: InputError that names the field that does not fit."""
        declared: Any = self.declared
        if isinstance(given, Mapping):
            return self._validate(dict(given), from_json=False)
        if is_typeddict(declared) or not isinstance(given, declared):
            raise InputError(
                "input", f"is of type {type(given).__name__}; pass {declared.__name__}(…) or its fields by name"
            )
        # Types are checked here and not first in the worker, when the caller is gone.
        return self.load(self.dump(given))

    def dump(self, value: InputT) -> Any:
        """The value as plain JSON data, at most 256 kB of it. Raises: InputError."""
        plain: Any = self._builtins(value)
        dump_json("input", plain)
        return plain

    def _builtins(self, value: Any) -> Any:
        try:
            if self._is_pydantic:
                return value.model_dump(mode="json", round_trip=True)
            # What msgspec made lacks the fields that were left at their defaults; the same input is the same JSON.
            is_plain = not dataclasses.is_dataclass(value) or isinstance(value, type)
            plain = value if is_plain else dataclasses.asdict(value)
            # A set has no order, the fingerprint of the input has to have one.
            return msgspec.to_builtins(plain, str_keys=True, order="deterministic")
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise InputError("input", f"is no JSON: {error}") from error

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of the input as the ledger keeps it."""
        return input_schema(self.declared, is_open=self._is_open)

    def load(self, plain: Any) -> InputT:
        """The value that `plain`, as the ledger keeps it, describes. Raises: InputError."""
        return self._validate(plain, from_json=True)

    def _validate(self, plain: Any, *, from_json: bool) -> InputT:
        declared: Any = self.declared
        unknown = [name for name in plain if name not in self.fields] if isinstance(plain, dict) else []
        if unknown and not self._is_open:
            raise InputError(
                redact(str(unknown[0])), f"is no field of {declared.__name__}; it has {', '.join(self.fields)}"
            )
        try:
            found: InputT = (
                model(declared, plain, from_json=from_json) if self._is_pydantic else msgspec.convert(plain, declared)
            )
        except msgspec.ValidationError as error:
            # Some tell the value that they refuse, and this runs before secrets are looked for. Nothing is chained:
            # the text of a cause would be printed as it is.
            raise InputError(*_located(redact(str(error)))) from None
        except ValueError as error:
            raise InputError(*map(redact, _pydantic_place(error))) from None
        return found


def _is_struct(declared: Any) -> bool:
    return isinstance(declared, type) and issubclass(declared, msgspec.Struct)


def _located(message: str) -> tuple[str, str]:
    """Msgspec's `Expected int, got str - at `$.number`` as the field and the problem."""
    problem, _, place = message.partition(" - at `$")
    if place:
        return place.rstrip("`").lstrip(".") or "input", problem
    return problem.split("`")[1] if "missing required field" in problem else "input", problem


def _pydantic_place(error: ValueError) -> tuple[str, str]:
    found = error.errors()[0] if hasattr(error, "errors") else {}
    return ".".join(str(part) for part in found.get("loc", ("input",))) or "input", str(found.get("msg", error))
