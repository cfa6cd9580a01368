"""
Typed inputs: from keyword arguments to a checked value, to JSON, and back in the worker.

msgspec converts dataclasses, TypedDicts and its own Structs; a pydantic model converts itself, and pydantic
is imported only by the application that uses it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar, is_typeddict

import msgspec

from runclaim.errors import DeclarationError, InputError
from runclaim.flows.declare.input_forms import Form
from runclaim.flows.declare.json_schema import input_schema
from runclaim.flows.declare.json_types import flaw, flaw_told, is_model, model
from runclaim.flows.declare.own_code import own_code
from runclaim.flows.declare.round_trip import builtins_of, fields_of, require_same, require_used
from runclaim.keys import dump_json
from runclaim.secrets import redact

InputT = TypeVar("InputT")

#: Keyword arguments of `enqueue` itself, which an input's fields may not take.
RESERVED = frozenset({"session"})


class InputType(Generic[InputT]):
    """The declared type of a flow's input and its field names, in order."""

    def __init__(self, declared: type[InputT]) -> None:
        self.declared = declared
        self._is_pydantic = is_model(declared)
        self._is_open = self._is_pydantic and declared.model_config.get("extra") == "allow"  # type: ignore[attr-defined]
        self.fields = self._field_names()
        if taken := sorted(RESERVED & set(self.fields)):
            raise DeclarationError(f"{declared.__name__}.{taken[0]}: enqueue has an argument of that name; rename it")

        if found := flaw(declared):
            raise DeclarationError(flaw_told(declared.__name__, found))

    def _field_names(self) -> tuple[str, ...]:
        declared: Any = self.declared
        if self._is_pydantic:
            return tuple(declared.model_fields)
        is_class = isinstance(declared, type)
        if not (is_typeddict(declared) or (is_class and dataclasses.is_dataclass(declared)) or _is_struct(declared)):
            raise DeclarationError(
                f"the input of a flow must be a dataclass, a TypedDict or a pydantic model, not {declared!r}"
            )
        if is_typeddict(declared):
            return tuple(declared.__annotations__)
        return fields_of(declared)

    def check(self, given: InputT | Mapping[str, Any]) -> InputT:
        """A value of the declared type, as bodies get it. Raises: InputError that names the field that does not fit."""
        return self.take(given)[0]

    def take(self, given: InputT | Mapping[str, Any]) -> tuple[InputT, Any]:
        """
        A value of the declared type and the plain JSON data that is kept of it: bodies get the very same value.

        Raises: InputError that names the field that does not fit, or that a body would get otherwise.
        """
        declared: Any = self.declared
        if isinstance(given, Mapping):
            self._require_known(given)
            value = self._validate(dict(given), from_json=False)
        elif is_typeddict(declared) or not isinstance(given, declared):
            raise InputError(
                "input", f"is of type {type(given).__name__}; pass {declared.__name__}(…) or its fields by name"
            )
        else:
            value = given
        if isinstance(given, Mapping) and not self._is_pydantic:
            require_used(given, value)
        # Types are checked here and not first in the worker, when the caller is gone.
        plain = self.dump(value)
        read = self.load(plain)
        require_same("", value, read)
        # A whole number in a field of broken ones is kept as one of those, however the input is given.
        if (kept := self.form.kept(plain)) != plain:
            require_same("", value, self.load(kept))
        return read, kept

    def dump(self, value: InputT) -> Any:
        """The value as the plain data that JSON gives, at most 256 kB of it. Raises: InputError."""
        return json.loads(dump_json("input", self._builtins(value)))

    def _builtins(self, value: Any) -> Any:
        try:
            if self._is_pydantic:
                return value.model_dump(mode="json", round_trip=True)
            return builtins_of(value)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise InputError("input", f"is not JSON: {error}") from error

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of the input as the ledger keeps it."""
        return input_schema(self.declared, is_open=self._is_open)

    @cached_property
    def form(self) -> Form:
        """How an input of this type is written, and what it is compared by."""
        return Form(self.json_schema)

    @cached_property
    def own_code(self) -> str | None:
        """What of the type only its application can do, if anything."""
        return own_code(self.declared, self.json_schema)

    def comparable(self, recorded: Any) -> Any:
        """What a recorded input is compared by: as the type reads it now. Raises: InputError when it cannot."""
        return self.form.compared(self.form.kept(self.dump(self.load(recorded))))

    def load(self, plain: Any) -> InputT:
        """
        The value that `plain`, as the ledger keeps it, describes. Raises: InputError.

        A field that the type had when that was written, and has no longer, is left out.
        """
        if not self._is_open and any(name not in self.fields for name in plain):
            plain = {name: each for name, each in plain.items() if name in self.fields}
        return self._validate(plain, from_json=True)

    def _require_known(self, given: Mapping[str, Any]) -> None:
        unknown = None if self._is_open else next((name for name in given if name not in self.fields), None)
        if unknown is not None:
            fields, kind = ", ".join(self.fields), self.declared.__name__
            raise InputError(redact(str(unknown)), f"is not a field of {kind}; it has {fields}")

    def _validate(self, plain: Any, *, from_json: bool) -> InputT:
        declared: Any = self.declared
        try:
            found: InputT = (
                model(declared, plain, from_json=from_json)
                if self._is_pydantic
                else msgspec.convert(plain, declared, str_keys=True)
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
