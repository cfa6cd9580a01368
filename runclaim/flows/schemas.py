"""
JSON Schema of a flow's input, so that what does not fit is refused by doors that do not have the input's type.

Defaults are in it as the ledger would keep them: an input that leaves a field out is the same input from every door.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


def input_schema(declared: Any, *, is_open: bool) -> dict[str, Any]:
    """The schema of `declared`; unless it `is_open`, a field that it does not know is refused."""
    if hasattr(declared, "model_json_schema"):
        # The ledger keeps fields by their names, whatever the outside calls them.
        schema: dict[str, Any] = declared.model_json_schema(by_alias=False)
    else:
        schema = msgspec.json.schema(declared)
    top = schema
    while "$ref" in top:
        top = schema["$defs"][top["$ref"].rpartition("/")[2]]
    if not is_open:
        top["additionalProperties"] = False
    for name, factory in _factories(declared).items():
        made = _constant(factory)
        if made is not None and name in top["properties"]:
            top["properties"][name] = top["properties"][name] | {"default": made[0]}
    return schema


def _factories(declared: Any) -> dict[str, Callable[[], Any]]:
    """The fields whose default is made by a function."""
    if dataclasses.is_dataclass(declared):
        made = {field.name: field.default_factory for field in dataclasses.fields(declared)}
        return {name: factory for name, factory in made.items() if factory is not dataclasses.MISSING}
    found = {name: getattr(field, "default_factory", None) for name, field in _model_fields(declared).items()}
    return {name: factory for name, factory in found.items() if factory is not None}


def _model_fields(declared: Any) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(declared, "model_fields", {})
    return fields


def _constant(factory: Callable[[], Any]) -> tuple[Any] | None:
    """What the factory makes, as JSON, if that is always the same and has a JSON form."""
    try:
        first, second = (_plain(factory()) for _ in range(2))
    except Exception:  # noqa: BLE001 - the application's own; a default that cannot be told is none
        return None
    return (first,) if first == second else None


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", round_trip=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return msgspec.to_builtins(value, str_keys=True, order="deterministic")
