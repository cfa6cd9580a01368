"""
The command line. `runclaim --help` imports neither Celery nor SQLAlchemy: commands load when they are called.

Data goes to stdout and talk to stderr. Exit codes: 0 done, 1 failed, 2 usage, 6 the ledger cannot be reached,
130 interrupted.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import click

from runclaim.errors import LedgerUnavailable, RunclaimError

_COMMANDS: Final = {
    "db": ("runclaim.cli.db", "Make and check the ledger's tables."),
    "api": ("runclaim.cli.api", "Serve the HTTP API."),
    "token": ("runclaim.cli.token", "Make, list and revoke tokens of the HTTP API."),
    "dev": ("runclaim.cli.dev", "Run worker, beat and a private broker in one command."),
}
_UNREACHABLE: Final = 6


class _Lazy(click.Group):
    """A group that knows its commands' names without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command now; `None` for an unknown name."""
        if name not in _COMMANDS:
            return None
        found: click.Command = import_module(_COMMANDS[name][0]).command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table above, so that the help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="runclaim")
def command() -> None:
    """Durable runs for Celery."""


def main() -> None:
    """The `runclaim` program."""
    try:
        command(prog_name="runclaim")
    except LedgerUnavailable as away:
        click.echo(f"runclaim: {away}", err=True)
        sys.exit(_UNREACHABLE)
    except RunclaimError as refused:
        click.echo(f"runclaim: {refused}", err=True)
        sys.exit(1)
