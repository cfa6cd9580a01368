"""Where a command looks for the ledger, and what it says where there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from runclaim.models import metadata

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Line


@pytest.mark.parametrize(
    "words, code, said",
    [
        ("runs list --remote --url sqlite:///x", 2, "--remote uses the API, which has its own ledger; leave out url"),
        ("runs list -A shop --url sqlite:///x", 2, "--app brings its own ledger; leave out --url"),
        (
            "runs list -A nothing_here",
            1,
            "there is no module nothing_here here; give -A as for celery -A, in the folder of the module",
        ),
        ("runs list -A json", 1, "there is no Celery app in json"),
        ("runs list -A tests.harness.until", 1, "has no Runclaim(app); name with -A the module that creates one"),
        ("runs list -A tests.harness:nothing", 1, "the module tests.harness has no nothing; give -A as for celery -A"),
        ("runs list --remote", 1, "set RUNCLAIM_API_URL to the API's address"),
        ("runs list --url mysql://localhost/x", 1, "is not supported: use postgresql://"),
        ("runs list --url sqlite:////nowhere/runclaim.db", 6, "there is no ledger sqlite:////nowhere/runclaim.db"),
    ],
)
def test_a_place_that_is_none_is_refused_with_what_to_do(local: Line, words: str, code: int, said: str):
    told = local(*words.split())

    assert (code, "") == (told.exit_code, told.stdout)
    assert said in told.stderr


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://x", "api.example.com", "http://"])
def test_an_address_that_is_not_http_is_refused(local: Line, address: str):
    told = local("runs", "list", "--remote", RUNCLAIM_API_URL=address)

    assert 1 == told.exit_code
    assert "write https://host or http://host:port" in told.stderr


def test_looking_at_a_ledger_that_is_not_there_makes_no_file(local: Line, tmp_path: Path):
    missing = tmp_path / "new.db"
    told = local("runs", "list", "--url", f"sqlite:///{missing}")

    assert 6 == told.exit_code
    assert "to create this one, run: runclaim db upgrade" in told.stderr
    assert not missing.exists()


def test_a_database_that_does_not_answer_is_unreachable_and_its_password_is_not_told(local: Line):
    told = local(
        "runs", "list", "--url", "postgresql+psycopg://me:hidden@127.0.0.1:1/x", RUNCLAIM_LEDGER_PATIENCE="100ms"
    )

    assert (6, "") == (told.exit_code, told.stdout)
    assert "does not answer" in told.stderr
    assert "hidden" not in told.stderr


@pytest.mark.parametrize("url", ["postgresql+psycopg://me:hidden@h/x", "postgresql+psycopg:///x?password=hidden"])
def test_a_password_among_the_words_is_warned_of_as_ps_shows_it(local: Line, url: str):
    warned = local("config", "show", "--url", url)
    silent = local("config", "show", "--url", "postgresql+psycopg://me@h/x")

    assert "is visible to every user of this machine; set RUNCLAIM_DATABASE_URL instead" in warned.stderr
    assert [True, ""] == ["hidden" not in warned.output, silent.stderr]


def test_a_schema_that_is_behind_is_told_with_the_command_that_mends_it(local: Line):
    local.bench.execute("UPDATE runclaim_schema_version SET version_num = '0000'")
    told = local("runs", "list")
    mended = local("db", "current", "--json")

    assert 1 == told.exit_code
    assert "runclaim db upgrade" in told.stderr
    assert "0000" == json.loads(mended.stdout)["current"]
    local.bench.execute(
        "UPDATE runclaim_schema_version SET version_num = :head", head=json.loads(mended.stdout)["wanted"]
    )


def test_a_definition_that_was_changed_by_hand_is_told_and_the_exit_code_says_so(local: Line):
    (index,) = (each for each in metadata.tables["runclaim_runs"].indexes if each.name == "ix_runclaim_runs_live")
    columns = ", ".join(column.name for column in index.columns)

    def made_where(predicate: str) -> None:
        local.bench.execute("DROP INDEX ix_runclaim_runs_live")
        local.bench.execute(f"CREATE INDEX ix_runclaim_runs_live ON runclaim_runs ({columns}) WHERE {predicate}")

    made_where("finished_at IS NOT NULL")
    told = local.local("db", "check")
    made_where("finished_at IS NULL")
    mended = local.local("db", "check")

    assert [1, 0] == [told.exit_code, mended.exit_code]
    assert "but the tables were changed by hand" in told.stderr
    assert told.stdout.startswith("runclaim_runs, index ix_runclaim_runs_live: is CREATE INDEX")
    assert 1 == len(told.stdout.splitlines())


def test_an_api_that_is_named_is_asked_when_no_ledger_is(local: Line):
    told = local("runs", "list", RUNCLAIM_DATABASE_URL=None, RUNCLAIM_API_URL="http://127.0.0.1:1")
    local = local("runs", "list", RUNCLAIM_API_URL="http://127.0.0.1:1")

    assert (6, "") == (told.exit_code, told.stdout)
    assert "the API http://127.0.0.1:1 does not answer" in told.stderr
    assert 0 == local.exit_code
