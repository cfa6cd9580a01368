"""
JSON Schema of a flow's input, so that what does not fit is refused by doors that do not have the input's type.

Defaults are in it as the ledger would keep them: an input that leaves a field out is the same input from every door.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from runclaim.flows.declare.input_forms import object_of
from runclaim.flows.declare.round_trip import builtins_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def input_schema(declared: Any, *, is_open: bool) -> dict[str, Any]:
    """The schema of `declared`; unless it `is_open`, a field that it does not know is refused, however deep."""
    if hasattr(declared, "model_json_schema"):
        # The ledger keeps fields by their names, whatever the outside calls them.
        schema: dict[str, Any] = declared.model_json_schema(by_alias=False, schema_generator=_generator())
    else:
        schema = msgspec.json.schema(declared)
        _Formats(schema).note(msgspec.inspect.type_info(declared), schema)
    top = object_of(schema)
    for each in (top, *schema.get("$defs", {}).values()):
        if "properties" in each and not (is_open and each is top):
            each.setdefault("additionalProperties", False)
    if is_open:
        top.setdefault("additionalProperties", True)
    # As the ledger gives it back: a default may be a tuple still.
    found: dict[str, Any] = json.loads(json.dumps(schema))
    return found


def _note_default(schema: dict[str, Any], name: str, factory: Callable[[], Any]) -> None:
    """What a function makes for a field is its default if it is always the same; else the field has to be given."""
    made = _constant(factory)
    if name not in schema.get("properties", {}):
        return
    if made is not None:
        schema["properties"][name] = schema["properties"][name] | {"default": made[0]}
    else:
        schema["required"] = sorted({*schema.get("required", ()), name})


@cache
def _generator() -> Any:
    """Pydantic's, with Decimals as the ledger keeps them, as text, and what functions make as defaults."""
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        def decimal_schema(self, schema: Any) -> dict[str, Any]:  # noqa: ARG002 - bounds are numbers'
            return {"type": "string", "format": "decimal"}

        def get_default_value(self, schema: Any) -> Any:
            made = _constant(schema["default_factory"]) if "default_factory" in schema else None
            return super().get_default_value(schema) if made is None else made[0]

        def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: FBT001 - as it is called
            factory = field["schema"].get("default_factory")
            return (factory is not None and _constant(factory) is None) or super().field_is_required(field, total)

    return Generator


def _note_format(found: Any, schema: dict[str, Any]) -> None:
    kinds = msgspec.inspect
    if isinstance(found, kinds.DateTimeType | kinds.TimeType):
        schema.setdefault("format", "time" if isinstance(found, kinds.TimeType) else "date-time")
    elif schema.get("contentEncoding") == "base64":
        schema["format"] = "base64"
    elif isinstance(found, kinds.DictType) and isinstance(found.key_type, kinds.IntType):
        schema["propertyNames"] = {"pattern": "^(0|-?[1-9][0-9]*)$"}


def _inside(found: Any, schema: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The types inside of a type of msgspec's, each with its schema; fields are another thing."""
    yield from zip(getattr(found, "types", ()), schema.get("anyOf", ()), strict=False)
    yield from zip(getattr(found, "item_types", ()), schema.get("prefixItems", ()), strict=False)
    for name, label in (("item_type", "items"), ("value_type", "additionalProperties")):
        if hasattr(found, name):
            yield getattr(found, name), schema.get(label)


class _Formats:
    """Notes in a schema of msgspec's what it leaves out: times that may be naive, keys that are numbers, defaults."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root, self._seen = root, set[int]()

    def note(self, found: Any, schema: Any) -> None:
        """Note what is inside a type, in its schema."""
        while isinstance(schema, dict) and "$ref" in schema:
            schema = self._root["$defs"][schema["$ref"].rpartition("/")[2]]
        if not isinstance(schema, dict) or id(found) in self._seen:
            return
        if hasattr(found, "fields"):
            self._seen.add(id(found))
            self._note_fields(found, schema)
        _note_format(found, schema)
        for each, its in _inside(found, schema):
            self.note(each, its)

    def _note_fields(self, found: Any, schema: dict[str, Any]) -> None:
        places = schema.get("properties") or dict(
            zip((each.encode_name for each in found.fields), schema.get("prefixItems", ()), strict=False)
        )
        for each in found.fields:
            self.note(each.type, places.get(each.encode_name))
            if each.default_factory is not msgspec.NODEFAULT and "default" not in places.get(each.encode_name, {}):
                _note_default(schema, each.encode_name, each.default_factory)


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
    return builtins_of(value)
