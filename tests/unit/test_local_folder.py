"""The folder `.runclaim`: which one is the project's, and what a process takes from it."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest
from celery import Celery

from runclaim import Runclaim
from runclaim.cli.dev_broker import DEFAULT_PORT, _of
from runclaim.config import resolve
from runclaim.errors import ConfigError
from runclaim.flows.fail_open.local_records import LocalRecords
from runclaim.local_folder import NAME, DevRuns, Shared, held, join, make, nearest, share
from runclaim.urls import sqlite_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEDGER, BROKER = "sqlite:////x/.runclaim/ledger.db", "redis://:secret@127.0.0.1:16389/0"
VARIABLES = {"RUNCLAIM_DATABASE_URL": LEDGER, "CELERY_BROKER_URL": BROKER, "RUNCLAIM_APP": "shop"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory of a person's, and the working directory."""
    folder = tmp_path / "home" / "project"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def running(project: Path) -> Iterator[Path]:
    """The project's folder while a `runclaim dev` runs in it."""
    folder = make(project / NAME)
    with held(folder):
        share(folder, Shared(str(project), VARIABLES))
        yield folder


def joined(**environ: str) -> dict[str, str]:
    join(environ)
    return environ


def test_a_process_of_the_project_gets_what_dev_shares(running: Path):
    assert VARIABLES == joined()


def test_in_a_directory_below_the_application_is_left_out_as_its_module_is_not_there(
    running: Path, monkeypatch: pytest.MonkeyPatch
):
    (running.parent / "sub").mkdir()
    monkeypatch.chdir(running.parent / "sub")

    assert {"RUNCLAIM_DATABASE_URL", "CELERY_BROKER_URL"} == set(joined())


def test_what_a_killed_dev_left_behind_is_ignored(project: Path):
    """INVARIANT: the file counts only while the lock is held. Breaks if it is read without a look at the lock."""
    folder = make(project / NAME)
    with held(folder):
        share(folder, Shared(str(project), VARIABLES))

    assert {} == joined()


def test_a_variable_that_is_set_stays_and_an_empty_one_is_none(running: Path):
    found = joined(CELERY_BROKER_URL="redis://mine", RUNCLAIM_APP="")

    assert VARIABLES | {"CELERY_BROKER_URL": "redis://mine"} == found


@pytest.mark.parametrize(
    "named",
    [
        {"RUNCLAIM_DATABASE_URL": "sqlite:///other.db"},
        {"RUNCLAIM_DATABASE_URL": "postgresql+psycopg://db/other"},
        {"RUNCLAIM_DATABASE_URL_FILE": "/run/secrets/url"},
        {"RUNCLAIM_DATABASE_URL": "nonsense"},
    ],
)
@pytest.mark.usefixtures("running")
def test_who_names_another_ledger_does_not_get_the_broker_of_this_one(named: dict[str, str]):
    """INVARIANT: one ledger's messages never go to another's workers. Breaks if each variable is taken by itself."""
    assert named == joined(**named)


@pytest.mark.usefixtures("running")
def test_who_names_the_same_ledger_gets_its_broker():
    assert VARIABLES == joined(RUNCLAIM_DATABASE_URL=LEDGER)


@pytest.mark.parametrize("spelling", ["postgres://h/x", "postgresql://h/x", "postgresql+psycopg://h/x"])
def test_the_same_ledger_is_recognized_in_any_spelling_and_with_its_schema(running: Path, spelling: str):
    ledger = resolve({}, {"RUNCLAIM_DATABASE_URL": "postgresql://h/x", "RUNCLAIM_SCHEMA": "work"}, {}).database_url
    share(running, Shared(str(running.parent), VARIABLES | {"RUNCLAIM_DATABASE_URL": ledger}))
    found = joined(RUNCLAIM_DATABASE_URL=spelling, RUNCLAIM_SCHEMA="work")

    assert BROKER == found["CELERY_BROKER_URL"]


def test_an_application_uses_the_broker_and_the_ledger_of_dev(running: Path, monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")
    app = Celery("shop", broker="redis://localhost:1", set_as_current=False)
    runs = Runclaim(app)

    assert [BROKER, LEDGER] == [app.conf.broker_url, runs.config.database_url]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"variables": 7}', '{"variables": {"CELERY_BROKER_URL": "redis://x"}}', '{"unknown": 1}', "null"],
)
def test_a_damaged_file_is_as_none(running: Path, content: str):
    (running / "dev.json").write_text(content)

    assert {} == joined()


def test_only_the_known_variables_are_taken(running: Path):
    """INVARIANT: the file cannot set any variable of a process. Breaks if it is taken as it is."""
    share(running, Shared(str(running.parent), VARIABLES | {"PYTHONPATH": "/evil"}))

    assert VARIABLES == joined()


@pytest.mark.parametrize("place", ["", "dev.json"])
def test_what_others_may_write_is_not_read(running: Path, place: str):
    """INVARIANT: nobody else can send this user's runs to a broker of theirs. Breaks if the modes are not looked at."""
    (running / place).chmod(0o777)

    assert {} == joined()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("place", ["", "dev.json"])
def test_what_another_user_owns_is_not_read(running: Path, place: str):
    os.chown(running / place, 65534, 65534)

    assert {} == joined()


def test_one_dev_runs_in_a_folder(running: Path):
    with pytest.raises(DevRuns, match=f"another runclaim dev runs in {running.parent}: use it"), held(running):
        pass


def test_a_process_that_looks_at_the_lock_does_not_keep_dev_from_starting(project: Path):
    folder = make(project / NAME)
    share(folder, Shared(str(project), VARIABLES))
    with (folder / "dev.lock").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        release = threading.Timer(0.05, fcntl.flock, (looking, fcntl.LOCK_UN))
        release.start()

        with held(folder) as last:
            assert Shared(str(project), VARIABLES) == last
        release.join()


def test_the_folder_is_for_its_user_only_and_no_version_control_sees_it(project: Path):
    (project / NAME).mkdir(mode=0o777)
    (project / NAME).chmod(0o777)
    folder = make(project / NAME)
    share(folder, Shared("", VARIABLES, BROKER))

    assert [0o700, 0o600] == [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder / "dev.json")]
    assert "*\n" == (folder / ".gitignore").read_text()
    assert BROKER == json.loads((folder / "dev.json").read_text())["private_broker"]


def test_records_of_flows_that_fail_open_lie_in_such_a_folder(project: Path):
    LocalRecords(project / NAME / "fail-open").check()

    assert 0o700 == stat.S_IMODE((project / NAME).stat().st_mode)
    assert "*\n" == (project / NAME / ".gitignore").read_text()


def test_the_folder_of_the_project_serves_the_directories_below(project: Path, monkeypatch: pytest.MonkeyPatch):
    make(project / NAME)
    (project / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(project / "a" / "b")
    above = nearest()
    make(project / "a" / NAME)

    assert [project / NAME, project / "a" / NAME] == [above, nearest()]
    assert f"sqlite:///{project}/a/{NAME}/ledger.db" == resolve({}, {}, {}).database_url
    assert f"{project}/a/{NAME}/fail-open" == resolve({}, {}, {}).fail_open_folder


@pytest.mark.parametrize("owner", ["the home directory", "everybody"])
def test_a_folder_that_belongs_to_no_project_serves_nobody_below(
    project: Path, monkeypatch: pytest.MonkeyPatch, owner: str
):
    """INVARIANT: a `.runclaim` in a home directory or in /tmp is no project's. Breaks if the search goes past it."""
    make(project.parent / NAME)
    if owner == "everybody":
        project.parent.chmod(0o777)
        monkeypatch.setenv("HOME", "/nonexistent")

    assert project / NAME == nearest()


def test_a_service_may_run_in_a_directory_that_it_cannot_look_into(project: Path):
    """Such as /root. INVARIANT: the search never ends a process. Breaks if it asks for more than it may."""
    environ = {"RUNCLAIM_DATABASE_URL": "postgresql://h/x"}
    project.chmod(0)
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)
        found = [nearest(), resolve({}, environ, {}).fail_open_folder, resolve({}, {}, {}).database_url, joined()]
    finally:
        os.seteuid(user)
        project.chmod(0o700)

    folder = project / NAME
    assert [folder, f"{folder}/fail-open", f"sqlite:///{folder}/ledger.db", {}] == found


def test_a_ledger_of_an_earlier_release_is_not_left_behind(project: Path):
    """INVARIANT: runs are never left in a file that nothing opens. Breaks if the default moves without a word."""
    (project / "runclaim.db").touch()
    with pytest.raises(ConfigError, match=r"runclaim\.db is the ledger of an earlier release; the default is now"):
        resolve({}, {}, {})
    named = resolve({}, {"RUNCLAIM_DATABASE_URL": "sqlite:///runclaim.db"}, {})
    (make(project / NAME) / "ledger.db").touch()

    assert f"sqlite:///{project}/runclaim.db" == named.database_url
    assert f"sqlite:///{project}/{NAME}/ledger.db" == resolve({}, {}, {}).database_url


def test_the_default_ledger_lies_in_a_directory_of_any_name(project: Path, monkeypatch: pytest.MonkeyPatch):
    folder = project / 'a%2Fb; "c" #?'
    folder.mkdir()
    monkeypatch.chdir(folder)

    assert folder / NAME / "ledger.db" == sqlite_file(resolve({}, {}, {}).database_url)


@pytest.mark.parametrize(
    "url, port, password",
    [(BROKER, 16389, "secret"), ("", None, None), ("redis://h:x", None, None), ("nonsense", None, None)],
)
def test_the_last_private_broker_gives_its_port_and_its_password(url: str, port: int | None, password: str | None):
    assert (port, password) == _of(url)


def test_the_default_port_is_not_one_that_the_kernel_gives_away():
    assert 1024 < DEFAULT_PORT < 32768
