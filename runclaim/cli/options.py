"""
Where a command finds the ledger: the options that most commands share, and what they mean together.

An application (`-A`, or the one that `celery -A` has loaded) knows its ledger and can ring the broker. Without one the
ledger is reached by its URL, or, with `--remote`, through the HTTP API.
"""

from __future__ import annotations

import functools
import os
import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from runclaim.cli.environment import API_URL, APP, LEDGER_URL, TOKEN
from runclaim.cli.terminal import say
from runclaim.config import resolve
from runclaim.urls import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim.app import Runclaim
    from runclaim.cli.backend import Backend
    from runclaim.config import Config

    Function = Callable[..., None]

app_option = click.option(
    "-A", "--app", metavar="MODULE", envvar=APP, help=f"Your application, as for celery -A; default: {APP}."
)
url_option = click.option(
    "--url",
    metavar="URL",
    help=f"The database of the ledger; default: {LEDGER_URL}, else the SQLite file .runclaim/ledger.db here.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, or one per line.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
project_option = click.option(
    "--project", metavar="NAME", help="Project of the runs; default: the configured project, or the token's."
)
_remote_option = click.option(
    "--remote/--local",
    default=None,
    help=f"Use the HTTP API at {API_URL} with {TOKEN}, or the ledger itself;"
    f" default: the API when {API_URL} is set and no ledger is named.",
)


def on_the_ledger(command: Function) -> Function:
    """Give a command `backend`: the runs of the ledger that its options name."""

    @app_option
    @url_option
    @_remote_option
    @functools.wraps(command)
    def called(*, app: str | None, url: str | None, remote: bool | None, **rest: Any) -> None:
        with _opened(app=app, url=url, remote=remote) as backend:
            command(backend=backend, **rest)

    return called


@contextmanager
def _opened(*, app: str | None, url: str | None, remote: bool | None) -> Iterator[Backend]:
    ctx = click.get_current_context()
    typed = [name for name in ("app", "url") if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if remote and (typed or loaded_app()):
        raise click.UsageError(
            f"--remote uses the API, which has its own ledger; leave out {' and '.join(typed) or 'it'}"
        )
    if remote is None:
        named = app or url or os.environ.get(LEDGER_URL) or loaded_app()
        remote = bool(os.environ.get(API_URL)) and not named
    if remote:
        from runclaim.cli.remote import RemoteBackend

        yield RemoteBackend.from_environment(os.environ)
        return
    from runclaim.cli.local import LocalBackend

    with LocalBackend.on(find_app(app, url), config_of(url)) as backend:
        yield backend


def loaded_app() -> Any:
    """The Celery app that `celery -A` has loaded, or `None` in a `runclaim` of its own."""
    return getattr(click.get_current_context().find_root().obj, "app", None)


def find_app(app: str | None, url: str | None) -> Runclaim | None:
    """The application's Runclaim, or `None` when none is named. Raises: ConfigError, click.UsageError."""
    named = loaded_app() or app
    if named is None:
        return None
    if url is not None:
        if named is app and click.get_current_context().get_parameter_source("app") is ParameterSource.ENVIRONMENT:
            return None  # what is typed comes before what a variable says
        raise click.UsageError("--app brings its own ledger; leave out --url")
    from runclaim.attached import find

    # What the module prints while it is imported is not our data.
    with redirect_stdout(sys.stderr):
        return find(named)


def config_of(url: str | None) -> Config:
    """The settings without an application. Raises: ConfigError."""
    if url is not None and masked(url) != url:
        say(f"--url with a password is visible to every user of this machine; set {LEDGER_URL} instead")
    return resolve({"database_url": url}, os.environ, {})
