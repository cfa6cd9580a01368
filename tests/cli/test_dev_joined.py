"""Commands in a project in which `runclaim dev` runs: they need no exports, and what is said to them comes first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runclaim import cli, local_folder
from runclaim.local_folder import NAME, Shared, held, make, share
from tests.harness.command_line import runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLES = ("RUNCLAIM_DATABASE_URL", "RUNCLAIM_APP", "CELERY_BROKER_URL", "RUNCLAIM_API_URL")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a ledger, whose `runclaim dev` shares an application that is not there."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # what a command sets meanwhile is undone
    monkeypatch.chdir(tmp_path)
    folder = make(tmp_path / NAME)
    shared = {"RUNCLAIM_DATABASE_URL": f"sqlite:///{folder}/ledger.db", "RUNCLAIM_APP": "missing_app"}
    with held(folder):
        share(folder, Shared(str(tmp_path), shared | {"CELERY_BROKER_URL": "redis://127.0.0.1:1"}))
        yield tmp_path


def invoked(*words: str, **environ: str):
    return runner().invoke(cli.command, words, env=environ, prog_name="runclaim")


@pytest.mark.usefixtures("project")
def test_a_command_uses_the_application_that_dev_runs():
    told = invoked("runs", "list")

    assert 1 == told.exit_code
    assert "there is no module missing_app here" in told.stderr


def test_a_ledger_that_is_typed_comes_before_the_application_of_a_variable(project: Path):
    """INVARIANT: an option comes before a variable. Breaks if an application that nobody typed refuses `--url`."""
    url = f"sqlite:///{project}/other.db"
    upgraded = invoked("db", "upgrade", "--url", url)
    listed = invoked("runs", "list", "--url", url)
    both = invoked("runs", "list", "--url", url, "-A", "missing_app")

    assert [0, 0, 2] == [upgraded.exit_code, listed.exit_code, both.exit_code], listed.output
    assert (project / "other.db").exists()
    assert "--app brings its own ledger; leave out --url" in both.stderr


@pytest.mark.usefixtures("project")
def test_an_api_that_is_named_comes_before_a_dev_that_runs():
    told = invoked("runs", "list", RUNCLAIM_API_URL="http://127.0.0.1:1")

    assert 6 == told.exit_code
    assert "the API http://127.0.0.1:1 does not answer" in told.stderr


@pytest.mark.usefixtures("project")
def test_a_second_dev_is_refused_by_the_first_and_not_by_its_variables():
    told = invoked("dev", "-A", "missing_app", "--no-flower")

    assert 4 == told.exit_code
    assert "another runclaim dev runs in" in told.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_dev_is_refused_in_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is shared there would be read by no one, so a second terminal would miss the broker without a word."""
    monkeypatch.chdir(tmp_path)
    os.chown(make(tmp_path / NAME), 65534, 65534)
    told = invoked("dev", "-A", "missing_app", "--no-flower")

    assert 4 == told.exit_code
    assert f"the folder {tmp_path / NAME} belongs to another user; work in a directory of your own" in told.stderr


def test_dev_is_refused_where_its_folder_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).write_text("a file")
    told = invoked("dev", "-A", "missing_app", "--no-flower")

    assert 4 == told.exit_code
    assert f"the folder {tmp_path / NAME} cannot be made: File exists" in told.stderr


def test_the_first_use_of_a_ledger_makes_its_folder_for_this_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)
    before = invoked("runs", "list")
    upgraded = invoked("db", "upgrade")
    folder = tmp_path / local_folder.NAME
    places = (folder, folder / local_folder.LEDGER)

    assert [6, 0] == [before.exit_code, upgraded.exit_code], upgraded.output
    assert [0o700, 0o600] == [each.stat().st_mode & 0o777 for each in places]
    assert "*\n" == (folder / ".gitignore").read_text()
