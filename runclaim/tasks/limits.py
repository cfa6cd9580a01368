"""Time limits that Celery has for a task: its own, else the application's."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery


def limit_of(app: Celery, task: Any) -> timedelta | None:
    """How long the task may take, by whichever of its limits comes first; `None` without any."""
    hard = task.time_limit or app.conf.task_time_limit
    soft = task.soft_time_limit or app.conf.task_soft_time_limit
    limits = [each for each in (hard, soft) if each]
    return timedelta(seconds=min(limits)) if limits else None
