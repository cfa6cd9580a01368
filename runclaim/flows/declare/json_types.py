"""Declared types: whether all inside can be kept as JSON, told where it is declared; and reading pydantic's models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_HIDDEN: Final = (
    "hides its value, so only asterisks would be stored; make it text and pass a reference such as secret:env:NAME,"
    " see docs/secrets.md"
)
_EXCLUDED: Final = "is excluded from the model's JSON, so bodies would never get it; remove exclude=True, or the field"
_KEYS: Final = "which JSON does not allow as keys; use text, numbers, dates, UUIDs or an Enum of them"
_NO_JSON: Final = (
    "has no JSON form; use text, numbers, lists, dicts, dates, dataclasses or pydantic models,"
    " defined where the module can see them at run time"
)
_KEY_TYPES: Final = (
    msgspec.inspect.StrType,
    msgspec.inspect.IntType,
    msgspec.inspect.FloatType,
    msgspec.inspect.DecimalType,
    msgspec.inspect.UUIDType,
    msgspec.inspect.DateType,
    msgspec.inspect.DateTimeType,
    msgspec.inspect.TimeType,
    msgspec.inspect.TimeDeltaType,
    msgspec.inspect.BytesType,
    msgspec.inspect.EnumType,
    msgspec.inspect.LiteralType,
    msgspec.inspect.AnyType,
)


def flaw(declared: Any) -> tuple[str, str] | None:
    """The first place inside `declared` that JSON cannot keep, and what is wrong with it; `None` when all can be."""
    return _flaw_of_model(declared) if is_model(declared) else _flaw_of_plain(declared)


def flaw_told(root: str, found: tuple[str, str]) -> str:
    """A flaw as people are told of it; `root` is what was declared."""
    place, problem = found
    return f"{root}.{place}: {problem}" if place else f"{root}: {problem}"


def is_model(declared: Any) -> bool:
    """Whether it is a pydantic model."""
    return hasattr(declared, "model_validate") and hasattr(declared, "model_fields")


def _flaw_of_plain(declared: Any) -> tuple[str, str] | None:
    try:
        waiting: list[tuple[str, Any]] = [("", msgspec.inspect.type_info(declared))]
    except (TypeError, NameError) as error:
        # A name that only a type checker can see is as unknown here as it will be in the worker.
        return "", f"{error}: {_NO_JSON}"
    seen: set[int] = set()
    while waiting:
        place, found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, msgspec.inspect.CustomType):
            problem = _HIDDEN if hasattr(found.cls, "get_secret_value") else _NO_JSON
            return place, f"{found.cls.__qualname__} {problem}"
        if isinstance(found, msgspec.inspect.DictType) and (strange := _strange_key(found.key_type)):
            return place, f"has keys of type {strange}, {_KEYS}"
        waiting.extend(_inside(place, found))
    return None


def _inside(place: str, found: Any) -> Iterator[tuple[str, Any]]:
    for name in ("item_type", "key_type", "value_type"):
        if (each := getattr(found, name, None)) is not None:
            yield place, each
    for name in ("item_types", "types"):
        yield from ((place, each) for each in getattr(found, name, ()))
    yield from ((f"{place}.{field.name}".lstrip("."), field.type) for field in getattr(found, "fields", ()))


def _strange_key(found: Any) -> str | None:
    """The name of a type whose values cannot be keys in JSON."""
    if isinstance(found, msgspec.inspect.UnionType):
        return next(filter(None, map(_strange_key, found.types)), None)
    if isinstance(found, _KEY_TYPES):
        return None
    named = getattr(found, "cls", None)
    return named.__qualname__ if named else type(found).__name__.removesuffix("Type").lower()


def _flaw_of_model(declared: Any) -> tuple[str, str] | None:
    waiting: list[tuple[str, Any]] = [("", declared)]
    seen: set[Any] = set()
    while waiting:
        place, found = waiting.pop(0)
        if hasattr(found, "get_secret_value"):
            return place, f"{found.__name__} {_HIDDEN}"
        if is_model(found) or is_typeddict(found) or (isinstance(found, type) and dataclasses.is_dataclass(found)):
            if found in seen:
                continue
            seen.add(found)
            fields = getattr(found, "model_fields", {})
            for name, field in fields.items():
                if field.exclude:
                    return f"{place}.{name}".lstrip("."), _EXCLUDED
            hints = {name: field.annotation for name, field in fields.items()} or _hints(found)
            waiting.extend((f"{place}.{name}".lstrip("."), each) for name, each in hints.items())
        origin, args = get_origin(found), get_args(found)
        if args and isinstance(origin, type) and issubclass(origin, Mapping):
            key = get_origin(args[0]) or args[0]
            if isinstance(key, type) and issubclass(key, bool | tuple):
                return place, f"has keys of type {key.__name__}, {_KEYS}"
        waiting.extend((place, each) for each in args)
    return None


def _hints(declared: Any) -> dict[str, Any]:
    try:
        return get_type_hints(declared)
    except NameError:
        return {}


def model(declared: Any, plain: Any, *, from_json: bool) -> Any:
    """A pydantic model from its fields by name; `from_json` reads what JSON made of them. Raises: ValueError."""
    # An alias is how the outside spells a field; templates and the ledger use its name.
    aliased = any(field.alias or field.validation_alias for field in declared.model_fields.values())
    how = {"by_name": True, "by_alias": True} if aliased else {}
    if from_json:
        return declared.model_validate_json(msgspec.json.encode(plain), **how)
    return declared.model_validate(plain, **how)
