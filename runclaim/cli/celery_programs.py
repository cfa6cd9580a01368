"""
`runclaim worker`, `beat` and `flower`: Celery's own programs on your application.

They become `celery -A MODULE worker …` and so on; every further option is Celery's.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Final, NoReturn

import click

from runclaim.cli.environment import APP
from runclaim.cli.exits import Refused

#: Flower hides the arguments, where the run key is, unless it is asked for them.
FLOWER_COLUMNS: Final = "--tasks_columns=name,args,state,result,received,runtime,worker"
_app = click.option(
    "-A",
    "--app",
    metavar="MODULE",
    envvar=APP,
    required=True,
    help=f"Your application, as for celery -A; default: {APP}.",
)
_rest = click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[CELERY_OPTIONS]...")
_passes: Final = {"ignore_unknown_options": True}


@click.command(context_settings=_passes)
@_app
@_rest
def worker(*, app: str, options: tuple[str, ...]) -> None:
    """
    Run a Celery worker: `celery -A MODULE worker`, with the options that follow.

    For example: runclaim worker -A reviews -c 8 -P threads -l info. All options: celery worker --help.
    """
    _become(app, "worker", options)


@click.command(context_settings=_passes)
@_app
@_rest
def beat(*, app: str, options: tuple[str, ...]) -> None:
    """
    Run Celery beat: `celery -A MODULE beat`, with the options that follow.

    It schedules rescue, dispatch and delivery next to your own tasks; running several is harmless.
    """
    _become(app, "beat", options)


@click.command(context_settings=_passes)
@_app
@_rest
def flower(*, app: str, options: tuple[str, ...]) -> None:
    """
    Run Flower: `celery -A MODULE flower`, with the options that follow.

    Listens on 127.0.0.1 and shows run keys in its task list, unless the options say otherwise.
    """
    if importlib.util.find_spec("flower") is None:
        raise Refused('Flower is not installed: pip install "runclaim[flower]"')
    given = " ".join(options)
    defaults = [] if "--address" in given or "--unix_socket" in given else ["--address=127.0.0.1"]
    defaults += [] if "--tasks" in given else [FLOWER_COLUMNS]
    _become(app, "flower", (*defaults, *options))


def _become(app: str, program: str, options: tuple[str, ...]) -> NoReturn:
    sys.stdout.flush()
    # The process stays the same, so signals and its exit code are Celery's.
    os.execv(sys.executable, [sys.executable, "-m", "celery", "-A", app, program, *options])  # noqa: S606 - as written
