"""
Code of an input's own: why only its application can tell which input a caller means.

A door without the application knows types by their JSON Schema. It refuses a flow whose type strips, converts or
computes what it is given, rather than make a second run of one thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from runclaim.flows.declare.input_forms import Form
from runclaim.flows.declare.json_types import is_model

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOOKS: Final = ("__post_init__", "__attrs_post_init__", "__attrs_pre_init__")
#: What pydantic's core does without custom code, in the same way as the ledger.
_PLAIN: Final = frozenset(
    [
        "any",
        "none",
        "bool",
        "int",
        "float",
        "str",
        "bytes",
        "date",
        "time",
        "datetime",
        "timedelta",
        "decimal",
        "uuid",
        "enum",
        "literal",
        "list",
        "tuple",
        "set",
        "frozenset",
        "dict",
        "nullable",
        "union",
        "model",
        "model-fields",
        "model-field",
        "dataclass",
        "dataclass-args",
        "dataclass-field",
        "typed-dict",
        "typed-dict-field",
        "definitions",
        "definition-ref",
        "default",
    ]
)
#: What a schema cannot say of a text that stands for something else.
_BOUNDED: Final = frozenset({"date", "time", "datetime", "timedelta", "decimal"})
_BOUNDS: Final = frozenset(
    {"gt", "ge", "lt", "le", "multiple_of", "max_digits", "decimal_places", "tz_constraint", "now_op"}
)
#: Each may be at a node or in the configuration of a model.
_CHANGES: Final = (
    "strip_whitespace",
    "to_lower",
    "to_upper",
    "str_strip_whitespace",
    "str_to_lower",
    "str_to_upper",
    "custom_init",
    "post_init",
    "root_model",
    "serialization",
    "default_factory_takes_data",
)


def own_code(declared: Any, schema: dict[str, Any]) -> str | None:
    """What of the type only its application can do; `None` when its `schema` says all of it."""
    found = _of_model(declared) if is_model(declared) else _of_plain(declared)
    return found or _unclear(schema)


def _of_plain(declared: Any) -> str | None:
    waiting, seen = [msgspec.inspect.type_info(declared)], set[int]()
    while waiting:
        found: Any = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if reason := _of_class(getattr(found, "cls", None)):
            return reason
        key = getattr(found, "key_type", None)
        if key is not None and not isinstance(key, msgspec.inspect.StrType | msgspec.inspect.IntType):
            return "it has keys that are neither text nor whole numbers"
        waiting += [getattr(found, name) for name in ("item_type", "value_type") if hasattr(found, name)]
        waiting += [*getattr(found, "item_types", ()), *getattr(found, "types", ())]
        waiting += [field.type for field in getattr(found, "fields", ())]
    return None


def _of_class(cls: Any) -> str | None:
    if hook := next((name for name in _HOOKS if hasattr(cls, name)), None):
        return f"{cls.__name__} has a {hook}"
    if any(each.converter or each.validator for each in getattr(cls, "__attrs_attrs__", ())):
        return f"{cls.__name__} has converters or validators"
    return None


def _of_model(declared: Any) -> str | None:
    for name, node in _core(declared.__pydantic_core_schema__, None):
        if reason := _of_node(node):
            return f"{name or declared.__name__} {reason}"
    return None


def _of_node(node: Mapping[str, Any]) -> str | None:
    kind, config = node["type"], node.get("config") or {}
    if kind not in _PLAIN:
        return f"runs code of its own ({kind})"
    if changes := next((each for each in _CHANGES if node.get(each) or config.get(each)), None):
        return f"runs code of its own ({changes})"
    if kind in _BOUNDED and _BOUNDS & set(node):
        return "has bounds on the value that it stands for"
    if kind == "dict" and node.get("keys_schema", {}).get("type", "str") not in {"str", "any"}:
        return "has keys that are not text"
    return None


def _core(node: Any, name: str | None) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """The nodes of pydantic's core schema, each with the field that it is in."""
    if isinstance(node, Mapping):
        if isinstance(node.get("type"), str):
            yield name, node
        for label, each in node.items():
            if label == "fields" and isinstance(each, Mapping):
                for field, inner in each.items():
                    yield from _core(inner, field if name is None else f"{name}.{field}")
            elif label not in {"metadata", "config", "default", "expected", "members"}:
                yield from _core(each, name)
    elif isinstance(node, list | tuple):
        for each in node:
            yield from _core(each, name)


def _unclear(schema: dict[str, Any]) -> str | None:
    """A union whose kinds of JSON overlap: which member is meant is for its type to say."""
    form = Form(schema)
    waiting: list[tuple[str | None, Any]] = [(None, schema)]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, list):
            waiting += [(name, each) for each in node]
        if not isinstance(node, dict):
            continue
        branches = node.get("anyOf") or node.get("oneOf") or []
        if "allOf" in node or (len(branches) > 1 and form.overlaps(branches)):
            return f"{name or 'it'} is a union whose members look alike in JSON"
        named = {**node.get("properties", {}), **node.get("$defs", {})}
        waiting += [*named.items()]
        inner = ("items", "prefixItems", "additionalProperties", "anyOf", "oneOf")
        waiting += [(name, node[key]) for key in inner if key in node]
    return None
