"""
Typed results: what a phase returns as JSON, and as the type it declared when a later phase asks for it.

Without a return annotation the result is plain JSON data.
"""

from __future__ import annotations

import inspect
import json
import types
from typing import TYPE_CHECKING, Any, Never, NoReturn, get_type_hints

import msgspec

from runclaim.errors import DeclarationError, InputError
from runclaim.flows.declare.json_types import flaw, flaw_told, is_model, model
from runclaim.flows.declare.round_trip import ATOMS, builtins_of, require_same
from runclaim.keys import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable


class ResultType:
    """The declared return type of a phase's body."""

    def __init__(self, body: Callable[..., Any], *, phase: str) -> None:
        self._phase = phase
        self._declared = _return_type(body)
        self._is_pydantic = is_model(self._declared)
        if found := flaw(self._declared):
            raise DeclarationError(flaw_told(f"the result of {phase}", found))

    def dump(self, value: Any) -> str:
        """JSON text of `value`, at most 256 kB. Raises: InputError when it is not JSON, or not what was declared."""
        field = f"the result of {self._phase}"
        try:
            plain = self._builtins(value)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise InputError(field, f"is not JSON: {error}") from error
        text = dump_json(field, plain)
        if type(value) in ATOMS and (self._declared is Any or self._declared is type(value)):
            return text
        # Told here and not by the phase that reads it.
        require_same(field, value, self._as_declared(json.loads(text)))
        return text

    def plain(self, value: Any) -> Any:
        """`value` as a later phase's worker would read it from the ledger. Raises: InputError."""
        return json.loads(self.dump(value))

    def _builtins(self, value: Any) -> Any:
        if self._is_pydantic and hasattr(value, "model_dump"):
            return value.model_dump(mode="json", round_trip=True)
        return builtins_of(value)

    def load(self, plain: Any) -> Any:
        """The recorded result as the declared type. Raises: InputError when the declaration has changed since."""
        # A skipped phase has no result, whatever it declares.
        return plain if plain is None else self._as_declared(plain)

    def _as_declared(self, plain: Any) -> Any:
        if self._declared is Any:
            return plain
        try:
            if self._is_pydantic:
                return model(self._declared, plain, from_json=True)
            return msgspec.convert(plain, self._declared, str_keys=True)
        except ValueError as error:
            declared = self._declared.__name__ if isinstance(self._declared, type) else self._declared
            problem = f"is not of type {declared}, which its phase declares: {error}"
            raise InputError(f"the result of {self._phase}", problem) from error


def _return_type(body: Callable[..., Any]) -> Any:
    """What the body says it returns; the types of its arguments may be known to a type checker only."""
    inner = inspect.unwrap(body)
    noted = getattr(inner, "__annotations__", {})
    if "return" not in noted:
        return Any
    told = types.SimpleNamespace(__annotations__={"return": noted["return"]})
    try:
        found = get_type_hints(told, globalns=getattr(inner, "__globals__", {}), include_extras=True)["return"]
    except NameError:
        # A name that only a type checker sees: nothing to convert to.
        return Any
    return Any if found in {Never, NoReturn} else found
