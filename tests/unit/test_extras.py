"""What is not installed is named with the command that installs it, before anything is tried again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from runclaim.connections import missing_client

ROOT = Path(__file__).parents[2]

#: Where a module is `None`, Python finds none of that name.
LEDGER = """
import sys
sys.modules["psycopg"] = None
from datetime import timedelta
from runclaim.database import Database
database = Database("postgresql://me:hunter2@127.0.0.1:1/x", patience=timedelta(hours=1))
database.ask(lambda conn: None)
"""
COMMAND = """
import os, sys
sys.modules["psycopg"] = None
os.environ["RUNCLAIM_DATABASE_URL"] = "postgresql://me:hunter2@127.0.0.1:1/x"
from runclaim.cli import main
sys.argv = ["runclaim", "runs", "list"]
main()
"""
BROKER = """
import sys
sys.modules["redis"] = None
import logging
logging.basicConfig()
from celery import Celery
from dataclasses import dataclass
from runclaim import Runclaim
app = Celery("shop", broker="{broker}")
runs = Runclaim(app, database_url="sqlite:///{folder}/ledger.db")
@dataclass
class Order: number: int
order = runs.flow("order", Order, key="{{number}}")
order.phase(lambda ctx: None, name="ship")
{then}
"""
ENQUEUE = "run = order.enqueue(number=1); runs.ledger.publisher.flush(); print(run.state)"
WORKER = "app.worker_main(['worker', '--pool=solo'])"


def said(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", [LEDGER, COMMAND], ids=["a ledger", "a command"])
def test_a_driver_that_is_not_installed_is_named_at_once(code: str):
    """Breaks if a missing module counts as a database that may come back."""
    done = said(code)

    assert 0 != done.returncode
    assert "its driver psycopg is not installed: pip install 'runclaim[postgres]'" in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("broker", ["redis://:hunter2@127.0.0.1:1/0", "sentinel://:hunter2@127.0.0.1:1/0"])
def test_a_client_of_the_broker_that_is_not_installed_is_named_and_the_run_is_kept(tmp_path: Path, broker: str):
    done = said(BROKER.format(broker=broker, folder=tmp_path, then=ENQUEUE))

    assert "queued\n" == done.stdout, done.stderr
    assert "the client of the broker, redis, is not installed: pip install 'runclaim[redis]'" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_worker_without_the_client_of_its_broker_does_not_start(tmp_path: Path):
    done = said(BROKER.format(broker="redis://:hunter2@127.0.0.1:1/0", folder=tmp_path, then=WORKER))

    assert 0 != done.returncode
    assert "this worker cannot start" in done.stderr
    assert "pip install 'runclaim[redis]'" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_transport_that_does_not_exist_is_named():
    with Celery("shop", broker="rabit://localhost", set_as_current=False) as app:
        said = missing_client(app)

    assert "kombu has no transport 'rabit': correct the beginning of the broker's URL" == said


def test_a_broker_whose_client_is_there_is_not_connected_to():
    with Celery("shop", broker="redis://127.0.0.1:1/0", set_as_current=False) as app:
        assert missing_client(app) is None
