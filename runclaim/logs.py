"""
runclaim's loggers: what looks like a secret leaves none of their lines unredacted.

A filter of a logger sees that logger's own lines only, so each gets it here; `logging.getLogger` is banned everywhere
else by the linter. A line without a secret passes as it is, its arguments and exception with it.
"""

from __future__ import annotations

import logging
from typing import Final

from runclaim.secrets import redact


class Redaction(logging.Filter):
    """Redacts the message, the traceback and the stack of a record; drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - a line that cannot be made is told by its handler, not to who logs
            return True
        if (clean := redact(said)) != said:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0]:
            told = _FORMATTER.formatException(record.exc_info)
            if (clean := redact(told)) != told:
                # Formatters print the text; without the exception none can make it anew.
                record.exc_text, record.exc_info = clean, None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


_FORMATTER: Final = logging.Formatter()
_REDACTION: Final = Redaction()


def logger(name: str) -> logging.Logger:
    """The logger of that name, whose lines are redacted."""
    found = logging.getLogger(name)  # noqa: TID251 - here it is made ours
    found.addFilter(_REDACTION)
    return found
