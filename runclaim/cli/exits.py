"""How a command ends: its exit codes, and which refusal ends in which. One line on stderr, never a traceback."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import click

from runclaim.cli.terminal import say
from runclaim.errors import (
    InputError,
    KeyConflict,
    LedgerRefused,
    LedgerUnavailable,
    RunclaimError,
    RunFailed,
    RunNotFound,
    StateConflict,
    WaitTimeout,
)
from runclaim.local_folder import DevRuns

if TYPE_CHECKING:
    from collections.abc import Iterator


class Exit(IntEnum):
    """The exit codes. Scripts rely on them: a new one may come, an old one keeps its meaning."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    NOT_ALLOWED = 5
    UNREACHABLE = 6
    RUN_FAILED = 7
    TIMED_OUT = 8
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class NotFound(RunclaimError):
    """What a command names does not exist: a flow, an action."""


class Refused(RunclaimError):
    """What a command asks for is not possible in the current state."""


class NotAllowed(RunclaimError):
    """The token does not have the required scope, or no token was sent."""


class Unreachable(RunclaimError):
    """The ledger or the API is not there, or does not answer."""


_CODES: Final[dict[type[RunclaimError], Exit]] = {
    RunNotFound: Exit.NOT_FOUND,
    NotFound: Exit.NOT_FOUND,
    StateConflict: Exit.REFUSED,
    KeyConflict: Exit.REFUSED,
    InputError: Exit.REFUSED,
    Refused: Exit.REFUSED,
    DevRuns: Exit.REFUSED,
    NotAllowed: Exit.NOT_ALLOWED,
    LedgerUnavailable: Exit.UNREACHABLE,
    LedgerRefused: Exit.UNREACHABLE,
    Unreachable: Exit.UNREACHABLE,
    RunFailed: Exit.RUN_FAILED,
    WaitTimeout: Exit.TIMED_OUT,
}


def code_of(refused: RunclaimError) -> Exit:
    """The exit code of a refusal: that of its class, or of the nearest class above it."""
    return next((_CODES[kind] for kind in type(refused).__mro__ if kind in _CODES), Exit.FAILED)


@contextmanager
def told() -> Iterator[None]:
    """Do a command; what it refuses becomes one line on stderr and an exit code."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer has no reader; flushing it at the end would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.PIPE_CLOSED)
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        sys.exit(Exit.INTERRUPTED)
    except RunclaimError as refused:
        tell(refused)
        sys.exit(code_of(refused))
    except Exception as error:
        if (words := _of_database(error)) is None:
            raise
        say(f"runclaim: the ledger returned an error: {words}")
        sys.exit(Exit.FAILED)


def _of_database(error: Exception) -> str | None:
    """What a database says, in one line; `None` for any other error."""
    # The code that raised it has imported it: a command without a database does not pay for it here.
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy.exc import DBAPIError

    from runclaim.sql.trouble import in_words

    return in_words(error) if isinstance(error, DBAPIError) else None


def tell(refused: RunclaimError) -> None:
    """Say on stderr what was refused."""
    say(f"runclaim: {refused}")
