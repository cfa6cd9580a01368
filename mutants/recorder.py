"""
A plugin for pytest that writes down which test ran which line, and how long each test took.

Loaded by `-p mutants.recorder` before anything of runclaim is imported. Tests that failed are left out: what they ran
says nothing. Lines that run while a module is imported belong to no test; `Recording.tests_for` looks further then.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Names the folder that the recorder writes to.
FOLDER = "MUTANTS_RECORDING"

RECORDER = coverage.Coverage(
    data_file=str(Path(os.environ[FOLDER]) / f"{os.getpid()}.coverage"), config_file=False, source=["runclaim"]
)
SECONDS: dict[str, float] = {}
FAILED: set[str] = set()

RECORDER.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Whatever runs from here on is this test's."""
    RECORDER.switch_context(item.nodeid)
    started = time.monotonic()
    try:
        return (yield)
    finally:
        SECONDS[item.nodeid] = time.monotonic() - started


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what did not pass."""
    if not report.passed:
        FAILED.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write both files of this process while xdist still waits for it; its controller ran no test and writes none."""
    RECORDER.stop()
    if SECONDS:
        RECORDER.save()
        passed = {name: seconds for name, seconds in SECONDS.items() if name not in FAILED}
        (Path(os.environ[FOLDER]) / f"{os.getpid()}.json").write_text(json.dumps(passed))
