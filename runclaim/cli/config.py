"""`runclaim config show`: each setting, and which of its sources won."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from runclaim.cli.environment import API_URL, APP, TOKEN
from runclaim.cli.options import app_option, config_of, find_app, json_option, url_option
from runclaim.cli.terminal import Table, give_json
from runclaim.config import Config, sources
from runclaim.urls import masked

if TYPE_CHECKING:
    from runclaim.app import Runclaim

_SECRET: Final = re.compile(r"pass|secret|token|key", re.IGNORECASE)
_MASK: Final = "***"
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


@click.group()
def command() -> None:
    """Show the current settings."""


@command.command()
@app_option
@url_option
@json_option
def show(*, app: str | None, url: str | None, as_json: bool) -> None:
    """
    Print each setting, its value and its source. Passwords and tokens are masked.

    With -A: the settings of the application; without: those of this shell.
    """
    rows = _rows(find_app(app, url), url)
    if as_json:
        give_json({name: {"value": value, "source": source} for name, value, source in rows})
    else:
        Table("setting", "value", "source", flexible="value", state="setting").show(rows)


def _rows(runs: Runclaim | None, url: str | None) -> list[tuple[str, str, str]]:
    config = config_of(url) if runs is None else runs.config
    found = sources({"database_url": url}, os.environ, {}) if runs is None else runs.sources
    rows = [(field.name, text(getattr(config, field.name)), found[field.name]) for field in fields(Config)]
    if runs is not None:
        rows.append(("broker_url", masked(str(runs.app.conf.broker_url or "")), "the application"))
    for variable in (APP, API_URL, TOKEN):
        if value := os.environ.get(variable):
            shown = _MASK if _SECRET.search(variable) else masked(value)
            rows.append((variable.removeprefix("RUNCLAIM_").lower(), shown, variable))
    return rows


def text(value: Any) -> str:
    """A setting as one may write it."""
    if not isinstance(value, timedelta):
        return masked(str(value))
    seconds = value.total_seconds()
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds and seconds % size == 0), (0.001, "ms"))
    return f"{seconds / size:g}{unit}"
