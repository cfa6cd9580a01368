"""
Payloads of webhooks: read from the raw body, and turned into an input by the application's mapping function.

What is wrong is the sender's to correct, and named by its place. No error contains the payload's own text: anyone
may have written it.
"""

from __future__ import annotations

import ast
import json
import linecache
import traceback
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qs

from runclaim import logs
from runclaim.errors import InputError
from runclaim.keys import clip
from runclaim.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType

DeliveryT = TypeVar("DeliveryT")
MappedT = TypeVar("MappedT")

logger: Final = logs.logger("runclaim.webhooks")

_FORM: Final = "application/x-www-form-urlencoded"
#: What a mapping raises where the payload is not as its sender documents it.
_UNFIT: Final = (LookupError, TypeError, AttributeError, ValueError)
_LONGEST_PLACE: Final = 200


def payload_of(body: bytes, content_type: str) -> Any:
    """
    The JSON of a body, which may be a form's field `payload` as GitHub sends it by default.

    Raises: InputError for what is not JSON, for NaN, for a field given twice, and for any other form.
    """
    if content_type.partition(";")[0].strip().lower() == _FORM:
        return _parsed(_field_of_form(body))
    return _parsed(body)


def _field_of_form(body: bytes) -> str:
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=100, errors="strict")
    except ValueError:
        fields = {}
    if len(found := fields.get("payload", [])) != 1:
        raise InputError(
            "body",
            "is form-encoded and has no field `payload` with the JSON;"
            " choose application/json where you configure the webhook",
        )
    return found[0]


def _parsed(text: bytes | str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise InputError(redact(clip(twice, _LONGEST_PLACE)), "occurs twice in one object of the payload")
        return found

    def refuse(constant: str) -> Any:
        raise InputError("body", f"contains {constant}, which is not JSON")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InputError("body", f"is not JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        # A number of too many digits, text that is not UTF-8, or nested too deeply.
        raise InputError("body", f"is not readable JSON: {type(error).__name__}") from None


def mapped(mapping: Callable[[DeliveryT], MappedT], delivery: DeliveryT) -> MappedT:
    """
    What the mapping makes of a delivery.

    Raises: InputError where the payload lacks what the mapping reads or has something else there; an error that comes
    from deeper than the mapping's own module is the application's, and is raised as it is.
    """
    try:
        return mapping(delivery)
    except InputError:
        raise
    except _UNFIT as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        code: CodeType | None = getattr(mapping, "__code__", None)
        if code is None or frame.filename != code.co_filename:
            raise
        kind = type(error).__name__
        place = _place(frame) or "payload"
        logger.warning("the mapping %s could not read a payload: %s at %s, line %s",
                       code.co_qualname, kind, place, frame.lineno)  # fmt: skip
        if isinstance(error, LookupError):
            raise InputError(place, "is missing in the payload") from None
        raise InputError(place, f"has a type that the mapping cannot read ({kind})") from None


def _place(frame: traceback.FrameSummary) -> str:
    """The fields and indexes that the failing expression names, such as `head.repo.full_name`; empty for none."""
    start, end = frame.colno, frame.end_colno
    if frame.lineno is None or start is None or end is None:
        return ""
    # Columns count bytes of UTF-8.
    line = linecache.getline(frame.filename, frame.lineno).encode()
    return _named(line[start:end].decode(errors="replace")) if frame.end_lineno == frame.lineno else ""


def _named(expression: str) -> str:
    try:
        node: ast.AST = ast.parse(expression, mode="eval").body
    except SyntaxError:
        return ""
    while not isinstance(node, ast.Subscript) and (inner := _read_by(node)) is not None:
        node = inner
    steps: list[str] = []
    while isinstance(node, ast.Subscript):
        key = node.slice.value if isinstance(node.slice, ast.Constant) else "*"
        steps.append(f"[{key}]" if isinstance(key, int) else f".{key!s}")
        node = node.value
    return "".join(reversed(steps)).lstrip(".")


def _read_by(node: ast.AST) -> ast.AST | None:
    """What an expression reads: `x` of `int(x)`, of `x.lower()` and of `[… for … in x]`."""
    if isinstance(node, ast.Call):
        return node.args[0] if node.args else node.func
    if isinstance(node, ast.Attribute):
        return node.value
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return node.generators[0].iter
    return None
