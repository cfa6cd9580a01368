"""Every line of runclaim's loggers says which run, phase, attempt and fence it is about; none shows an input."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import runclaim
from runclaim import logs
from runclaim.logs import JsonFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.bench import Bench


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a handler with the JSON formatter on the root logger writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    before = logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.DEBUG)
    yield stream
    logging.root.removeHandler(handler)
    logging.root.setLevel(before)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "steering", ["\n", "\r", "\x1b[31m", "\x00", "\x9b31m", "\x85", "\u2028", "\u2029", "\u202e", "\u2066"]
)
def test_no_key_or_error_begins_a_line_of_its_own_or_steers_a_terminal(steering: str):
    """INVARIANT: what anybody wrote is text in a log. Breaks if a message is formatted as it came."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    ours = logs.logger("runclaim.test")
    ours.addHandler(handler)
    try:
        error = ValueError(f"a{steering}b")
        ours.error("key %s failed: %s", f"x{steering}y", error, exc_info=error, stack_info=True)
    finally:
        ours.removeHandler(handler)
    first, *others = stream.getvalue().split("\n")
    escaped = steering.encode("unicode_escape").decode()

    assert f"key x{escaped}y failed: a{escaped}b" == first
    assert "\n" == steering or not any(steering in line for line in others)


def test_a_line_inside_a_phase_says_where_it_was_written(bench: Bench, written: io.StringIO):
    flow = bench.flow()

    @flow.phase
    def plan(ctx: Any) -> int:
        logs.logger("runclaim.test").info("ours")
        logging.getLogger("application").warning("%s", "theirs", extra={"files": 3})
        return 1

    run = flow.enqueue(repo="canary-of-the-input", number=7)
    bench.deliver(flow)

    told = {line["message"]: line for line in lines(written)}
    for said in ("ours", "theirs"):
        assert {"run": run.id, "phase": "plan", "attempt": 1, "fence": 1}.items() <= told[said].items()
    assert ("warning", "application", 3) == tuple(told["theirs"][name] for name in ("level", "logger", "files"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", told["ours"]["time"])
    assert "canary" not in written.getvalue()


def test_every_record_has_the_four_attributes_even_if_it_is_about_no_run(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "runclaim"):
        logs.logger("runclaim.test").info("hello")

    (record,) = caplog.records
    assert [None] * 4 == [getattr(record, name) for name in logs.FIELDS]


def test_what_a_line_is_given_stays(caplog: pytest.LogCaptureFixture):
    class Claim:
        run_id, phase, attempt, fence = "r", "plan", 2, 9

    with caplog.at_level(logging.INFO, "runclaim"), logs.about(Claim()):  # type: ignore[arg-type]
        logs.logger("runclaim.test").info("hello", extra={"fence": 10})

    (record,) = caplog.records
    assert ["r", "plan", 2, 10] == [getattr(record, name) for name in logs.FIELDS]


def test_an_exception_is_one_field_of_one_line(written: io.StringIO):
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        logs.logger("runclaim.test").exception("it failed\nbadly")

    (line,) = lines(written)
    assert "it failed\\nbadly" == line["message"]
    assert "ZeroDivisionError" == line["error"]["type"]
    assert "Traceback" in line["error"]["traceback"]


def test_every_logger_of_runclaim_is_made_here():
    """INVARIANT: no line of ours lacks the fields. Breaks when a module makes its logger by itself."""
    folder = Path(runclaim.__file__).parent
    found = [
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if re.search(r"logging\.getLogger\((?!\"alembic\")", path.read_text())
    ]

    assert ["logs.py"] == found
