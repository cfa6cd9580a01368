"""
The same commands as `celery -A app runclaim …`.

Every `celery` process imports this module, so it imports nothing but click. Celery has loaded the application by
then, and the commands find it in their context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runclaim.cli import SHARED
from runclaim.cli.lazy import Outermost

if TYPE_CHECKING:
    from collections.abc import Iterable


@click.group("runclaim", cls=Outermost, table=SHARED, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def command(ctx: click.Context, /, **_preload: Iterable[str]) -> None:
    """Durable runs: enqueue, watch and stop them."""
    if getattr(ctx.obj, "no_color", False):
        ctx.color = False
