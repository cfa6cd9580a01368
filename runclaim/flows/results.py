"""
Typed results: what a phase returns as JSON, and as the type it declared when a later phase asks for it.

Without a return annotation the result is plain JSON data.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from runclaim.errors import DeclarationError, InputError
from runclaim.keys import dump_json

if TYPE_CHECKING:
    from collections.abc import Callable


class ResultType:
    """The declared return type of a phase's body."""

    def __init__(self, body: Callable[..., Any], *, phase: str) -> None:
        self._phase = phase
        try:
            self._declared: Any = get_type_hints(body).get("return", Any)
        except NameError:
            # A name that only a type checker sees: nothing to convert to.
            self._declared = Any
        self._is_pydantic = hasattr(self._declared, "model_validate")
        if not self._is_pydantic and (strange := _strange(self._declared)):
            raise DeclarationError(
                f"phase {phase} returns {strange}, which is no JSON: return text, numbers, lists, dicts or a dataclass"
            )

    def dump(self, value: Any) -> str:
        """JSON text of `value`, at most 256 kB. Raises: InputError when it is no JSON."""
        try:
            plain = value.model_dump(mode="json") if self._is_pydantic else msgspec.to_builtins(value)
        except (TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            raise InputError(f"the result of {self._phase}", f"is no JSON: {error}") from error
        return dump_json(f"the result of {self._phase}", plain)

    def plain(self, value: Any) -> Any:
        """`value` as a later phase's worker would read it from the ledger. Raises: InputError."""
        return json.loads(self.dump(value))

    def load(self, plain: Any) -> Any:
        """The recorded result as the declared type. Raises: InputError when the declaration has changed since."""
        if self._declared is Any or plain is None:
            return plain
        try:
            return self._declared.model_validate(plain) if self._is_pydantic else self._convert(plain)
        except ValueError as error:
            raise InputError(f"the result of {self._phase}", f"is no {self._declared}: {error}") from error

    def _convert(self, plain: Any) -> Any:
        return msgspec.convert(plain, self._declared)


def _strange(declared: Any) -> str | None:
    """The first type inside `declared` that has no JSON form, if there is one."""
    try:
        shape = msgspec.inspect.type_info(declared)
    except TypeError as error:
        return str(error)
    seen: list[Any] = [shape]
    while seen:
        found = seen.pop()
        if isinstance(found, msgspec.inspect.CustomType):
            return repr(found.cls)
        inner = [getattr(found, name, None) for name in ("item_type", "key_type", "value_type")]
        seen.extend(each for each in inner if each is not None)
        for name in ("item_types", "types"):
            seen.extend(getattr(found, name, ()))
    return None
