"""What only a terminal gets: tables, colours, questions, and a line that says where a run stands."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from runclaim.states import RunState
from tests.harness.shell import Shell

if TYPE_CHECKING:
    from tests.harness import Site

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def shell(redis_site: Site) -> Shell:
    return Shell(redis_site.folder, {"RUNCLAIM_DATABASE_URL": redis_site.told["database_url"]})


def test_a_list_is_a_table_in_colours_that_fits_its_terminal(redis_site: Site, shell: Shell):
    long = redis_site.enqueue("ö" * 200)
    redis_site.enqueue("short").cancel()
    shown = shell.at_terminal("runs", "list")
    plain = [shell.at_terminal("runs", "list", NO_COLOR="1"), shell.at_terminal("runs", "list", TERM="dumb")]
    lines = _COLOURS.sub("", shown.out).splitlines()

    assert 0 == shown.code
    assert "\x1b[" in shown.out
    assert ["ID", "STATE", "FLOW", "KEY", "PHASE", "ENQUEUED"] == lines[0].split()
    assert ["canceled", "short"] == [lines[1].split()[column] for column in (1, 3)]
    assert [long.id, "queued"] == lines[2].split()[:2]
    assert lines[2].split()[3].endswith("…")
    assert [] == [line for line in lines if len(line) > 80]
    assert lines[2].endswith("s ago")
    assert [lines[0], lines[0]] == [each.out.splitlines()[0] for each in plain]
    assert [] == [each for each in plain if "\x1b" in each.out]


def test_in_a_pipe_nothing_is_cut_coloured_or_overwritten(redis_site: Site, shell: Shell):
    run = redis_site.enqueue("ö" * 200)
    listed, status = shell("runs", "list"), shell("runs", "status", run.id)
    waited = shell("runs", "enqueue", "steps", "--input", json.dumps({"name": "a"}), "--wait", "--timeout", "1100ms",
        RUNCLAIM_APP="tests.harness.app", HARNESS=json.dumps(redis_site.told), RUNCLAIM_DATABASE_URL=""
    )  # fmt: skip

    assert "ö" * 200 == listed.out.split("\t")[3]
    assert f"key\t{'ö' * 200}" in status.out.splitlines()
    assert 8 == waited.code
    assert "\x1b" not in listed.out + status.out + waited.out + waited.err
    assert "\r" not in waited.err


def test_cancel_asks_and_takes_only_a_yes(redis_site: Site, shell: Shell):
    run = redis_site.enqueue("a")
    no = shell.at_terminal("runs", "cancel", run.id, answer="\n")
    before = run.state
    yes = shell.at_terminal("runs", "cancel", run.id, answer="y\n")

    assert (1, RunState.QUEUED) == (no.code, before)
    assert f"{run.id}  steps a, queued" in no.out
    assert "Cancel this run? [y/N]" in no.out
    assert "nothing was canceled" in no.out
    assert (0, RunState.CANCELED) == (yes.code, run.state)


def test_waiting_shows_on_one_line_where_the_run_stands(redis_site: Site, shell: Shell):
    shell.variables |= {"RUNCLAIM_APP": "tests.harness.app", "HARNESS": json.dumps(redis_site.told)}
    del shell.variables["RUNCLAIM_DATABASE_URL"]
    told = shell.at_terminal(
        "runs", "enqueue", "steps", "--input", json.dumps({"name": "a"}), "--wait", "--timeout", "2s"
    )

    assert 8 == told.code
    assert re.search(r"\r\x1b\[2Kqueued first \(0 of 3 complete\), \d s\r\x1b\[2K", told.out)
    assert "is still queued after 2 s" in told.out
