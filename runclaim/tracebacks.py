"""
An exception as others see it: in the ledger, in a monitor, in Celery's log. No secret is left in any of them.

`hide` redacts a text; it is `runclaim.secrets.redact`, or that of an attempt, which knows what the attempt was given.
It comes before each cut: half a secret looks like none.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import Redacted
from runclaim.keys import MAX_ERROR_BYTES, clip
from runclaim.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_TYPE_BYTES: Final = 256
_MAX_MESSAGE_BYTES: Final = 2048
_MAX_TRACEBACK_BYTES: Final = MAX_ERROR_BYTES - _MAX_MESSAGE_BYTES - _MAX_TYPE_BYTES
_MAX_SHOWN_BYTES: Final = 500


def error_data(error: BaseException, hide: Callable[[str], str]) -> dict[str, Any]:
    """The exception as the ledger keeps it: type, message and traceback, at most 8 kB in all."""
    return {
        "type": clip(hide(type(error).__name__), _MAX_TYPE_BYTES),
        "message": message_of(error, hide),
        "traceback": clip(hide(_traceback(error)), _MAX_TRACEBACK_BYTES),
    }


def reported_error_data(kind: str, message: str, trace: str) -> dict[str, Any]:
    """An error reported from outside, as the ledger keeps it: redacted, then cut, so that half a secret shows."""
    return {
        "type": clip(redact(kind), _MAX_TYPE_BYTES) or "Error",
        "message": clip(redact(message), _MAX_MESSAGE_BYTES),
        "traceback": clip(redact(trace), _MAX_TRACEBACK_BYTES),
    }


def message_of(error: BaseException, hide: Callable[[str], str]) -> str:
    """The exception's own words, at most 2 kB."""
    return clip(hide(_words(error)), _MAX_MESSAGE_BYTES)


def line_of(error: BaseException, hide: Callable[[str], str]) -> str:
    """The exception on one line, at most 500 bytes."""
    return clip(hide(_repr(error)), _MAX_SHOWN_BYTES)


def harmless(error: BaseException, hide: Callable[[str], str]) -> BaseException:
    """
    The exception itself, to be raised where others log it; when it holds a secret, a `Redacted` in its place.

    An exception that ends the process still does, with its text redacted.
    """
    if all(hide(text) == text for text in (_traceback(error), _repr(error))):
        return error
    if isinstance(error, SystemExit):
        # The interpreter prints what it was given.
        return SystemExit(error.code if isinstance(error.code, int) else message_of(error, hide))
    if not isinstance(error, Exception):
        return error
    redacted = Redacted(f"{hide(type(error).__name__)}: {message_of(error, hide)}")
    redacted.add_note(error_data(error, hide)["traceback"])
    return redacted


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _repr(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - as below
        return f"{type(error).__name__}({_words(error)!r})"


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - what cannot even be printed ends its attempt like anything else
        return "its text could not be made"
