"""
runclaim's loggers: every line says which run, phase, attempt and fence it is about, and none holds a secret.

A filter of a logger sees that logger's own lines only, so each gets both here; `logging.getLogger` is banned everywhere
else by the linter. The four are attributes of the record, `None` where a line is about no run; `JsonFormatter` writes
them as fields. No line carries an input or a result: a run is named by its id and its key.
"""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from runclaim import tracing
from runclaim.keys import STEERING
from runclaim.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The attributes that every record of a runclaim logger has.
FIELDS: Final = ("run", "phase", "attempt", "fence")
_NOTHING: Final[Mapping[str, Any]] = dict.fromkeys(FIELDS)
_current: ContextVar[Mapping[str, Any]] = ContextVar("runclaim_log_fields", default=_NOTHING)
_STANDARD: Final = frozenset(
    {*logging.LogRecord("", 0, "", 0, "", None, None).__dict__, "message", "asctime", "color", *FIELDS}
)


class Claimed(Protocol):
    """What a line can be about: a claim of a run's phase."""

    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def phase(self) -> str: ...  # noqa: D102
    @property
    def attempt(self) -> int: ...  # noqa: D102
    @property
    def fence(self) -> int: ...  # noqa: D102


def of(claim: Claimed) -> dict[str, Any]:
    """The fields of a claim, for `extra=` where a line is not written under `about`."""
    return {"run": claim.run_id, "phase": claim.phase, "attempt": claim.attempt, "fence": claim.fence}


@contextmanager
def about(claim: Claimed) -> Iterator[None]:
    """Lines written in this block, by this thread or task, are about `claim`; the application's own too."""
    token = _current.set(of(claim))
    try:
        yield
    finally:
        _current.reset(token)


class Fields(logging.Filter):
    """Gives every record the four fields; what `extra=` said stays. Drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        for name, value in _current.get().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class Redaction(logging.Filter):
    """
    Redacts the message, the traceback and the stack of a record; drops no record.

    A message is one line of printable text: keys and errors may come from anyone, and none may begin a line of its
    own or steer a terminal.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - a line that cannot be made is told by its handler, not to who logs
            return True
        if (clean := _STEERS.sub(_escaped, redact(said))) != said:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0]:
            told = _FORMATTER.formatException(record.exc_info)
            if (clean := _STEERS_IN_LINES.sub(_escaped, redact(told))) != told:
                # Formatters print the text; without the exception, none can create it again.
                record.exc_text, record.exc_info = clean, None
        if record.stack_info:
            record.stack_info = _STEERS_IN_LINES.sub(_escaped, redact(record.stack_info))
        return True


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


_STEERS: Final = re.compile(f"[{STEERING}]")
_STEERS_IN_LINES: Final = re.compile(rf"(?![\n\t])[{STEERING}]")

_FORMATTER: Final = logging.Formatter()
_REDACTION: Final = Redaction()
_FIELDS: Final = Fields()


def logger(name: str) -> logging.Logger:
    """The logger of that name, whose lines have the fields and are redacted."""
    found = logging.getLogger(name)  # noqa: TID251 - here it is made ours
    found.addFilter(_FIELDS)
    found.addFilter(_REDACTION)
    return found


class JsonFormatter(logging.Formatter):
    """
    One JSON object a line: time, level, logger, message, the fields, the trace, and what else was given as `extra`.

    For any logger; lines of the application that were written inside a phase have the fields too. `"()":
    "runclaim.logs.JsonFormatter"` in `logging.config`, or the setting `log_format` = `json` for workers and beat.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        around = _current.get()
        line |= {name: getattr(record, name, around[name]) for name in FIELDS}
        line |= tracing.current_ids()
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = {"type": record.exc_info[0].__name__, "traceback": self.formatException(record.exc_info)}
        elif record.exc_text:
            line["error"] = {"traceback": record.exc_text}
        return json.dumps({name: value for name, value in line.items() if value is not None}, default=str)
