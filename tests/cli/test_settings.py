"""`runclaim config show`: every setting with its source, and no secret."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from runclaim import cli
from runclaim.config import Config
from tests.harness.command_line import runner

if TYPE_CHECKING:
    import pytest

SECRET = "canary-5f2c"
MODULE = f"""
from celery import Celery
from runclaim import Runclaim

print("noise of the module")
app = Celery("shown", broker="amqp://me:{SECRET}@localhost//;amqp://me:{SECRET}@other//")
app.conf.runclaim_lease = "45s"
runs = Runclaim(app, database_url="postgresql+psycopg://me:{SECRET}@localhost/x", purge_every="2h")
"""


def show(*words: str, **environment: str):
    told = runner().invoke(
        cli.command,
        ["config", "show", *words],
        env={"RUNCLAIM_DATABASE_URL": None, "RUNCLAIM_APP": None, "CELERY_BROKER_URL": None} | environment,
    )
    assert 0 == told.exit_code, told.output
    assert SECRET not in told.output
    return told


def test_each_setting_of_an_application_is_shown_with_the_source_that_won(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "shown_app.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    told = show("-A", "shown_app", "--json", RUNCLAIM_PROJECT="acme", RUNCLAIM_LEASE="", RUNCLAIM_TOKEN=SECRET)
    found = json.loads(told.stdout)

    assert {field.name for field in dataclasses.fields(Config)} <= set(found)
    assert {"value": "postgresql+psycopg://me:***@localhost/x", "source": "argument"} == found["database_url"]
    assert {"value": "acme", "source": "RUNCLAIM_PROJECT"} == found["project"]
    assert {"value": "45s", "source": "runclaim_lease"} == found["lease"]
    assert {"value": "2h", "source": "argument"} == found["purge_every"]
    assert {"value": "15s", "source": "default"} == found["rescue_every"]
    assert "amqp://me:***@localhost//;amqp://me:***@other//" == found["broker_url"]["value"]
    assert {"value": "***", "source": "RUNCLAIM_TOKEN"} == found["token"]
    assert "noise of the module\n" == told.stderr


def test_without_an_application_the_settings_are_those_of_the_shell():
    lines = dict(line.split("\t", 1) for line in show(RUNCLAIM_LEASE="500ms").stdout.splitlines())

    assert "500ms\tRUNCLAIM_LEASE" == lines["lease"]
    assert f"sqlite:///{Path.cwd()}/.runclaim/ledger.db\tdefault" == lines["database_url"]
    assert "broker_url" not in lines
