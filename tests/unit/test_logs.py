"""What runclaim logs holds no secret, whoever logs it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from runclaim import logs

if TYPE_CHECKING:
    import pytest

TOKEN = "ghp_" + "Ab3" * 12


def raises(text: str) -> None:
    raise ValueError(text)


def logged(caplog: pytest.LogCaptureFixture, *args: object, **how: object) -> logging.LogRecord:
    with caplog.at_level(logging.DEBUG, logger="runclaim"):
        logs.logger("runclaim.test").warning(*args, **how)
    return caplog.records[-1]


def test_a_line_of_our_loggers_holds_no_secret_in_its_message_traceback_or_stack(caplog: pytest.LogCaptureFixture):
    try:
        raises(TOKEN)
    except ValueError as error:
        record = logged(caplog, "could not: %s %s", error, {"url": "amqp://me:hunter2@host"}, exc_info=True)

    assert (
        "could not: [redacted: GitHub token] {'url': 'amqp://[redacted: URL with a password]@host'}"
    ) == record.getMessage()
    assert "ValueError: [redacted: GitHub token]" in caplog.text
    assert TOKEN not in caplog.text
    assert "hunter2" not in caplog.text
    assert record.exc_info is None


def test_a_line_without_a_secret_keeps_its_arguments_and_its_exception(caplog: pytest.LogCaptureFixture):
    try:
        raises("no secret")
    except ValueError as error:
        record = logged(caplog, "could not: %s", error, exc_info=True, stack_info=True)

    assert "could not: %s" == record.msg
    assert record.args
    assert record.exc_info


def test_a_line_that_cannot_be_made_disturbs_nobody(caplog: pytest.LogCaptureFixture, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    record = logs.logger("runclaim.test").makeRecord("n", logging.INFO, "f", 1, "%d", ("no number",), None)

    assert all(each.filter(record) for each in logs.logger("runclaim.test").filters)


def test_every_logger_of_runclaim_redacts():
    """INVARIANT: no logger is forgotten. Breaks if a module asks `logging` for one; the linter refuses that too."""
    import runclaim.app
    import runclaim.flows.run.runner
    import runclaim.tasks.task_events  # noqa: F401

    ours = [each for each in logging.root.manager.loggerDict.items() if each[0].startswith("runclaim.")]
    bare = [name for name, found in ours if isinstance(found, logging.Logger) and not found.filters]

    assert {"runclaim.broker", "runclaim.keeper", "runclaim.runner", "runclaim.worker"} <= {name for name, _ in ours}
    assert [] == bare
