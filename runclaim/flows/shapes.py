"""Declared types: whether all inside has a JSON form, told where it is declared; and reading pydantic's models."""

from __future__ import annotations

from typing import Any

import msgspec


def strange(declared: Any) -> str | None:
    """The first type inside `declared` that has no JSON form, with the field it is in; `None` when all have one."""
    try:
        waiting: list[tuple[str, Any]] = [("", msgspec.inspect.type_info(declared))]
    except (TypeError, NameError) as error:
        # A name that only a type checker can see is as unknown here as it will be in the worker.
        return str(error)
    seen: set[int] = set()
    while waiting:
        place, found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, msgspec.inspect.CustomType):
            return f"{place}: {found.cls.__qualname__}" if place else str(found.cls.__qualname__)
        for name in ("item_type", "key_type", "value_type"):
            waiting.extend((place, each) for each in (getattr(found, name, None),) if each is not None)
        for name in ("item_types", "types"):
            waiting.extend((place, each) for each in getattr(found, name, ()))
        waiting.extend((f"{place}.{field.name}".lstrip("."), field.type) for field in getattr(found, "fields", ()))
    return None


def model(declared: Any, plain: Any, *, from_json: bool) -> Any:
    """A pydantic model from its fields by name; `from_json` reads what JSON made of them. Raises: ValueError."""
    # An alias is how the outside spells a field; templates and the ledger use its name.
    aliased = any(field.alias or field.validation_alias for field in declared.model_fields.values())
    how = {"by_name": True, "by_alias": True} if aliased else {}
    if from_json:
        return declared.model_validate_json(msgspec.json.encode(plain), **how)
    return declared.model_validate(plain, **how)
