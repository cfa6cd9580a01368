"""The kinds of values that options take, each refused as a usage error that says what to write."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from runclaim.config import duration
from runclaim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

if TYPE_CHECKING:
    ParamType = click.ParamType[Any, Any]
else:  # which takes parameters only since click 8.5
    ParamType = click.ParamType

#: More than any input may have (256 kB of JSON); what is longer is not read to its end.
_LONGEST_INPUT: Final = 1_048_576


class Duration(ParamType):
    """`90`, `90s`, `5m`, `2h`, `30d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The duration."""
        try:
            return duration("it", value)
        except ConfigError as error:
            self.fail(str(error).replace("it is ", "", 1), param, ctx)


class Moment(ParamType):
    """A time, or a duration that goes back from now by this machine's clock."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, in UTC."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.now(UTC) - duration("it", value)
        except (ConfigError, OverflowError):
            pass
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is not a time; write 2h or 7d for that long ago, or 2026-11-21T17:00:00Z",
                param,
                ctx,
            )
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


class Identifier(ParamType):
    """The id of a run or an action."""

    name = "id"

    def __init__(self, of: str) -> None:
        self._of = of

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id as the ledger spells it."""
        try:
            return str(UUID(value))
        except ValueError:
            self.fail(f"{value!r} is not an id; list the ids with: runclaim {self._of}s list", param, ctx)


def input_from(given: str | None, *, stdin: bool, file: str | None) -> Any:
    """The JSON input of a run from the one place that names it; `{}` without any. Raises: click.UsageError."""
    places = [given is not None, stdin, file is not None]
    if sum(places) > 1:
        raise click.UsageError("give the input exactly once: with --input, --stdin or --input-file")
    if stdin or file is not None:
        with click.open_file(file or "-", "rb") as opened:
            text = opened.read(_LONGEST_INPUT + 1)
        if len(text) > _LONGEST_INPUT:
            raise click.UsageError("the input is larger than 1 MB; store it elsewhere and pass a reference")
        return parsed(text)
    return {} if given is None else parsed(given)


def parsed(text: str | bytes) -> Any:
    """JSON, strictly: no NaN, no name twice. Raises: click.UsageError."""
    try:
        found = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"the input is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise click.UsageError('the input must be a JSON object, such as {"number": 7}')
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}; use null or text")


def _once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r} occurs twice in one object")
    return found
