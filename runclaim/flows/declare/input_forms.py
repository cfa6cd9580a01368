"""
The form of an input: of the many spellings of one value in JSON, the one that the ledger keeps and the one it compares.

Both are found by the JSON Schema of the input, so that a door without the application finds what the application does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

Op = Callable[[Any], Any]
Schema = dict[str, Any]

#: What a text of a format stands for.
TYPES: Final = {
    "date-time": datetime,
    "date": date,
    "time": time,
    "duration": timedelta,
    "uuid": UUID,
    "decimal": Decimal,
    "base64": bytes,
}
_NUMBERS: Final = frozenset({"integer", "number"})
_ANY: Final = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})
_YEARS: Final = re.compile(r"(?P<sign>[+-]?)P(?P<years>[0-9]{1,7})Y(?:(?P<days>[0-9]{1,9})D)?")
#: A fraction cannot be equal to a whole number above this.
_MOST: Final = 1 << 1023
_SORTED: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def object_of(schema: dict[str, Any]) -> dict[str, Any]:
    """The part of an input's schema that describes its fields."""
    top = schema
    while "$ref" in top:
        top = schema["$defs"][top["$ref"].rpartition("/")[2]]
    return top


class Form:
    """What an input of this schema is kept as, and what it is compared by; texts of a wrong format stay as they are."""

    def __init__(self, schema: Schema) -> None:
        self._root = schema
        self._refs: dict[tuple[str, bool], Op | None] = {}
        self._kept, self._compared = self._op(schema, compared=False), self._op(schema, compared=True)

    def kept(self, plain: Any) -> Any:
        """In the ledger's spelling: with defaults, sets sorted, and times, UUIDs and numbers written in one way."""
        return self._kept(plain) if self._kept else plain

    def compared(self, plain: Any) -> Any:
        """Of what is kept, the same for all that is equal: Decimals without trailing zeros, moments in UTC."""
        return self._compared(plain) if self._compared else plain

    def _op(self, schema: Any, *, compared: bool) -> Op | None:
        if not isinstance(schema, dict):
            return None
        if (ref := schema.get("$ref", "")).startswith("#/$defs/"):
            return self._referred(ref, compared=compared)
        if branches := schema.get("anyOf") or schema.get("oneOf"):
            return self._chosen(branches, compared=compared)
        if "properties" in schema or "additionalProperties" in schema:
            return self._object(schema, compared=compared)
        if schema.get("type") == "array":
            return self._array(schema, compared=compared)
        return _scalar(schema, compared=compared)

    def _referred(self, ref: str, *, compared: bool) -> Op:
        place = ref, compared

        def later(value: Any) -> Any:
            op = self._refs[place]
            return op(value) if op else value

        if place not in self._refs:
            # A type may contain itself.
            self._refs[place] = None
            self._refs[place] = self._op(self._resolved({"$ref": ref}), compared=compared)
        return later

    def _resolved(self, schema: Any) -> Any:
        while isinstance(schema, dict) and schema.get("$ref", "").startswith("#/$defs/"):
            schema = self._root.get("$defs", {}).get(schema["$ref"].removeprefix("#/$defs/"), {})
        return schema

    def _chosen(self, branches: list[Any], *, compared: bool) -> Op | None:
        """The branch of a union that takes the kind of the value."""
        by_kind: dict[str, Op | None] = {}
        either = {kind for each in branches for kind in self._kinds(each)} >= _NUMBERS
        for each in branches:
            kinds = self._kinds(each)
            if kinds & _NUMBERS:
                # Where both are declared, each number is one or the other already.
                kinds = kinds - _NUMBERS if either else kinds | _NUMBERS
            op = self._op(each, compared=compared)
            by_kind |= dict.fromkeys(kinds, op)
        if not any(by_kind.values()):
            return None

        def choose(value: Any) -> Any:
            op = by_kind.get(kind_of(value))
            return op(value) if op else value

        return choose

    def overlaps(self, branches: list[Any]) -> bool:
        """Whether two members of a union take one kind of JSON, and it makes a difference which of them is meant."""
        taken: dict[str, int] = {}
        for each in branches:
            kinds = self._kinds(each)
            is_decimal = isinstance(each, dict) and each.get("format") == "decimal"
            for kind in kinds | (_NUMBERS if is_decimal else frozenset()):
                taken[kind] = taken.get(kind, 0) + 1
        twice = {kind for kind, many in taken.items() if many > 1}
        has_form = any(self._op(each, compared=True) for each in branches)
        return bool(twice & {"array", "object"}) or (bool(twice) and has_form)

    def _kinds(self, schema: Any) -> frozenset[str]:
        return kinds_of(self._resolved(schema))

    def _object(self, schema: Schema, *, compared: bool) -> Op | None:
        known, closed = schema.get("properties", {}), schema.get("additionalProperties") is False
        ops = {name: self._op(each, compared=compared) for name, each in known.items()}
        other = self._op(schema.get("additionalProperties"), compared=compared)
        defaults = {
            name: each["default"] for name, each in known.items() if isinstance(each, dict) and "default" in each
        }
        if not (any(ops.values()) or other or defaults or (closed and compared)):
            return None

        def each_of(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            if value.keys() == ops.keys():  # nothing is missing or unknown: the ordinary case, for every run
                return {name: op(each) if (op := ops[name]) else each for name, each in value.items()}
            # What a type had once and has no longer says nothing of whether two inputs are the same.
            names = [name for name in value if name in known] if closed and compared else list(value)
            names += [name for name in defaults if name not in value]
            whole = defaults | value
            return {name: op(whole[name]) if (op := ops.get(name, other)) else whole[name] for name in names}

        return each_of

    def _array(self, schema: Schema, *, compared: bool) -> Op | None:
        first = [self._op(each, compared=compared) for each in schema.get("prefixItems", ())]
        rest = self._op(schema.get("items"), compared=compared)
        is_set = bool(schema.get("uniqueItems"))
        if not (any(first) or rest or is_set):
            return None

        def each_of(value: Any) -> Any:
            if not isinstance(value, list):
                return value
            ops = [*first, *[rest] * (len(value) - len(first))]
            items = [op(each) if op else each for op, each in zip(ops, value, strict=False)]
            return _as_set(items) if is_set else items

        return each_of


def kind_of(value: Any) -> str:
    """The type that JSON Schema calls it."""
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def kinds_of(schema: Any) -> frozenset[str]:
    """The types of what a schema without references takes, numbers of both kinds where it takes any."""
    if not isinstance(schema, dict):
        return _ANY
    if "enum" in schema or "const" in schema:
        return frozenset(map(kind_of, schema.get("enum", [schema.get("const")])))
    named = schema.get("type", _ANY)
    return frozenset([named] if isinstance(named, str) else named)


def _as_set(items: list[Any]) -> list[Any]:
    found = {_SORTED.encode(each): each for each in items}
    return [found[text] for text in sorted(found)]


def _scalar(schema: Schema, *, compared: bool) -> Op | None:
    if "enum" in schema or "const" in schema:
        members = schema.get("enum", [schema.get("const")])
        whole = [each for each in members if isinstance(each, int) and not isinstance(each, bool)]
        return (lambda value: _whole(value) if _whole(value) in whole else value) if whole else None
    if (kind := TYPES.get(schema.get("format", ""))) is not None:
        return _spelling(kind, compared=compared)
    if schema.get("type") == "number":
        return _without_sign if compared else _broken
    return _whole if schema.get("type") == "integer" else None


def _spelling(kind: Any, *, compared: bool) -> Op:
    def spell(value: Any) -> Any:
        if not isinstance(value, str) and (kind is not Decimal or isinstance(value, bool)):
            return value
        text = _in_days(value) if kind is timedelta else value
        try:
            found = msgspec.convert(text, kind)
            if compared and kind is Decimal:
                return _shortest(found)
            if compared and kind is datetime and found.tzinfo is not None:
                found = found.astimezone(UTC)
            return msgspec.to_builtins(found)
        except (msgspec.ValidationError, OverflowError):
            return value

    return spell


def _in_days(text: str) -> str:
    """A duration without the years that pydantic writes, each of 365 days."""
    if (years := _YEARS.match(text)) is None:
        return text
    days = 365 * int(years["years"]) + int(years["days"] or 0)
    return f"{years['sign']}P{days}D{text[years.end() :]}"


def _shortest(value: Decimal) -> str:
    """The same text for equal numbers; never as long as the number itself would be, such as 1E+1000000."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return str(value)
    text = "".join(map(str, digits)).lstrip("0")
    short = text.rstrip("0")
    return f"{'-' * sign}{short}E{exponent + len(text) - len(short)}" if short else "0E0"


def _broken(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST else value


def _without_sign(value: Any) -> Any:
    return _broken(value) + 0.0 if kind_of(value) in _NUMBERS else value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
