"""
The check of an input against a registered schema, in bounded time whatever the input is.

Items are compared by their canonical text and not in pairs, patterns are matched in linear time where their syntax
allows it, and a check that takes more processor time than any honest input needs is given up.
"""

from __future__ import annotations

import json
import re
import time
from contextvars import ContextVar
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from runclaim.errors import ConfigError, InputError
from runclaim.flows.declare.input_forms import TYPES
from runclaim.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Keyword = Callable[[Any, Any, Any, dict[str, Any]], Iterator[Any] | None]

#: An input with more mistakes than this has another mistake.
_MOST_PROBLEMS: Final = 20
#: Processor time of the checking thread; the largest honest input needs about two.
_MOST_SECONDS: Final = 5.0
_LONGEST_REASON: Final = 200
_ends_at: ContextVar[float] = ContextVar("runclaim_check_ends_at")


def problems_of(schema: dict[str, Any], value: Any) -> list[tuple[str, str]]:
    """
    What does not fit, sorted: JSON pointers with reasons, at most 20. No reason repeats a secret.

    Raises: InputError for an input that takes too long to check, ConfigError without runclaim[api].
    """
    validator = _validator()({name: each for name, each in schema.items() if name != "$schema"})
    found: list[tuple[str, str]] = []
    token = _ends_at.set(time.thread_time() + _MOST_SECONDS)
    try:
        for error in validator.iter_errors(value):
            pointer = "".join(f"/{_escaped(part)}" for part in error.absolute_path)
            found.append((redact(pointer), _reason(error.message)))
            if len(found) == _MOST_PROBLEMS:
                break
    finally:
        _ends_at.reset(token)
    return sorted(found)


@cache
def _validator() -> Callable[[dict[str, Any]], Any]:
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.validators import extend
        from referencing import Registry
    except ImportError as missing:
        raise ConfigError(
            "to check inputs without the application, jsonschema is needed: pip install 'runclaim[api]'"
        ) from missing
    ours: dict[str, Keyword] = {
        "uniqueItems": _unique_items,
        "pattern": _pattern,
        "format": _format,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    }
    keywords = {name: _timed(check) for name, check in (Draft202012Validator.VALIDATORS | ours).items()}
    bounded = extend(Draft202012Validator, validators=keywords)  # type: ignore[no-untyped-call]
    # A registry of its own: nothing that a schema refers to is fetched.
    return lambda schema: bounded(schema, registry=Registry())


def _timed(check: Keyword) -> Keyword:
    def timed(validator: Any, said: Any, instance: Any, schema: dict[str, Any]) -> Iterator[Any] | None:
        if time.thread_time() > _ends_at.get():
            raise InputError("input", f"takes more than {_MOST_SECONDS:.0f} s to check against the schema of its flow")
        return check(validator, said, instance, schema)

    return timed


def _unique_items(validator: Any, wanted: Any, instance: Any, _schema: dict[str, Any]) -> Iterator[Any]:
    if wanted and validator.is_type(instance, "array") and len({_canonical(each) for each in instance}) < len(instance):
        yield _error("has duplicate items")


def _canonical(value: Any) -> str:
    return json.dumps(_numbers_alike(value), sort_keys=True)


def _numbers_alike(value: Any) -> Any:
    """To JSON Schema 1 and 1.0 are one number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_numbers_alike(each) for each in value]
    if isinstance(value, dict):
        return {name: _numbers_alike(each) for name, each in value.items()}
    return value


def _format(validator: Any, name: str, instance: Any, _schema: dict[str, Any]) -> Iterator[Any]:
    if validator.is_type(instance, "string") and name in TYPES:
        try:
            msgspec.convert(instance, TYPES[name])
        except msgspec.ValidationError as error:
            yield _error(str(error))


def _pattern(validator: Any, pattern: str, instance: Any, _schema: dict[str, Any]) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not _matcher(pattern)(instance):
        yield _error(f"does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: dict[str, Any]) -> Iterator[Any]:
    if validator.is_type(instance, "object"):
        for pattern, subschema in patterns.items():
            matches = _matcher(pattern)
            for name, each in instance.items():
                if matches(name):
                    yield from validator.descend(each, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: dict[str, Any]) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), [_matcher(each) for each in schema.get("patternProperties", {})]
    extras = [name for name in instance if name not in known and not any(matches(name) for matches in patterns)]
    if validator.is_type(allowed, "object"):
        for name in extras:
            yield from validator.descend(instance[name], allowed, path=name)
    elif not allowed and extras:
        yield _error(f"has unknown fields: {', '.join(repr(name) for name in extras[:_MOST_PROBLEMS])}")


@lru_cache(maxsize=512)
def _matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a text matches, in linear time; by `re` where the pattern looks around or refers back."""
    try:
        from pydantic_core import SchemaError, SchemaValidator, core_schema
    except ImportError:
        return lambda text: re.search(pattern, text) is not None
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")).isinstance_python
    except SchemaError:
        return lambda text: re.search(pattern, text) is not None


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _reason(message: str) -> str:
    # Redacted before it is cut: half a secret looks like none.
    clean = redact(message)
    return clean if len(clean) <= _LONGEST_REASON else f"{clean[:_LONGEST_REASON]}…"


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
