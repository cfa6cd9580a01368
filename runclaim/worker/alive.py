"""How worker and beat report on themselves: log lines as JSON, and a file whose age says that they live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps, signals

from runclaim.logs import JsonFormatter

if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger

    from celery import Celery

    from runclaim.config import Config

#: Well under the half minute after which a health check may call the process dead.
_TOUCH_SECONDS: Final = 5.0


def attach(app: Celery, config: Callable[[], Config]) -> None:
    """Attach to workers and beats of the app."""
    app.steps["consumer"].add(_alive_step(config))

    def log_set_up(logger: Logger, **_kwargs: Any) -> None:
        if config().log_format == "json":
            for handler in logger.handlers:
                handler.setFormatter(JsonFormatter())

    def beat_starts(**_kwargs: Any) -> None:
        # Beat publishes the upkeep every few seconds, whether or not the broker answers.
        signals.before_task_publish.connect(lambda **_: touch(config()), weak=False)

    signals.after_setup_logger.connect(log_set_up, weak=False)
    signals.after_setup_task_logger.connect(log_set_up, weak=False)
    signals.beat_init.connect(beat_starts, weak=False)


def touch(config: Config) -> None:
    """Show that this process is alive, if a file is named for it. A full disk must not end the process."""
    if config.alive_file:
        try:
            Path(config.alive_file).touch()
        except OSError:
            return


def _alive_step(config: Callable[[], Config]) -> type:
    class RunclaimAlive(bootsteps.StartStopStep):
        """Touches the file from the loop that consumes messages, so that a loop that hangs lets it age."""

        def start(self, parent: Any) -> None:
            touch(config())
            parent.timer.call_repeatedly(_TOUCH_SECONDS, touch, (config(),))

    return RunclaimAlive
