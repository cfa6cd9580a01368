"""Beat's part without a beat: the entries stand in the schedule, whenever the application assigns its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from celery.beat import Service
from celery.signals import beat_init

from runclaim import Runclaim
from runclaim.tasks.upkeep import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = {"ours": {"task": "own", "schedule": 10}}


@pytest.fixture
def app(sqlite_url: str) -> Iterator[Celery]:
    app = Celery("shop", broker="memory://", set_as_current=False)
    runs = Runclaim(app, database_url=sqlite_url)
    yield app
    runs.close()
    app.close()


def started(app: Celery, folder: Path) -> set[str]:
    """The entries of a beat of the application, once it has started."""
    service = Service(app, schedule_filename=str(folder / "schedule"))
    assert service.scheduler.schedule is not None
    beat_init.send(sender=service)
    entries = set(service.scheduler.schedule)
    service.scheduler.close()
    return entries


@pytest.mark.parametrize("when", ["before", "in on_after_configure", "in on_after_finalize", "once all is made"])
def test_the_upkeep_stands_in_the_schedule_whenever_the_application_assigns_its_own(
    app: Celery, tmp_path: Path, when: str, caplog: pytest.LogCaptureFixture
):
    """
    INVARIANT: a beat of the application sends the upkeep, whatever the application does with its schedule.

    Breaks if entries that were added are thought to stay: an assignment replaces them all.
    """

    def assign(sender: Celery = app, **_: object) -> None:
        sender.conf.beat_schedule = dict(OURS)

    if when == "before":
        assign()
    elif when == "in on_after_configure":
        app.on_after_configure.connect(assign)
    elif when == "in on_after_finalize":
        app.on_after_finalize.connect(assign)
    assert app.tasks
    if when == "once all is made":
        assign()
    with caplog.at_level(logging.WARNING, logger="runclaim.beat"):
        entries = started(app, tmp_path)

    assert {"ours", *ALL} == entries - {"celery.backend_cleanup"}
    late = when in {"in on_after_finalize", "once all is made"}
    assert ["added again" in each.getMessage() for each in caplog.records] == ([True] if late else [])


def test_the_beat_of_another_application_is_left_alone(app: Celery, tmp_path: Path):
    other = Celery("other", broker="memory://", set_as_current=False)

    assert set() == started(other, tmp_path) & set(ALL)
