"""`runclaim completion`: what teaches a shell to complete commands, options and states."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from runclaim.cli.exits import Refused
from runclaim.cli.terminal import give

_PROGRAM: Final = "runclaim"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, *, shell: str) -> None:
    """
    Print the completion script for a shell.

    bash: put eval "$(runclaim completion bash)" into ~/.bashrc.

    zsh: put eval "$(runclaim completion zsh)" into ~/.zshrc.

    fish: runclaim completion fish > ~/.config/fish/completions/runclaim.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise Refused(f"the installed release of click has no completion for {shell}; upgrade click")
    give(kind(ctx.find_root().command, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE").source())
