"""
The stage: ledger, broker, middleman, workers and beat, all private to this trial, said aloud, gone at its end.

Nothing that runs already is touched; on a PostgreSQL server the trial makes a database of its own and drops it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

from reviewer import record
from reviewer.posting import TIMEOUT_SECONDS
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from runclaim import migrations
from runclaim.config import duration
from runclaim.database import Database
from runclaim.servers import valkey
from runclaim.servers.machine import free_port
from trial.processes import Guard, Process, beat, forge, worker
from trial.thrice import TIMES, Thrice

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from trial.screen import Screen

#: Short, so that a minute shows what otherwise takes several.
SETTINGS: Final = {
    "RUNCLAIM_LEASE": "3s",
    "RUNCLAIM_RESCUE_EVERY": "1s",
    "RUNCLAIM_DISPATCH_EVERY": "1s",
    "RUNCLAIM_DISPATCH_AFTER": "2s",
    "RUNCLAIM_DELIVER_EVERY": "1s",
}
#: What the forge's requests meet: each of these once at first, later by chance. A slow answer outlasts its sender.
_MOODS: Final = {
    "first": ["lost reply", "500 after applying", "502 before applying", "slow", "422"],
    "rates": {"lost reply": 0.12, "500 after applying": 0.08, "502 before applying": 0.08, "slow": 0.02, "422": 0.01},
    "slow_seconds": TIMEOUT_SECONDS + 0.5,
}
_WORKERS: Final = ("one", "two", "three")
#: How long all workers together may take to end in order.
_STOP_SECONDS: Final = 6.0
#: How long the forge may take to answer, also while it starts again.
_FORGE_SECONDS: Final = 10.0
_EXAMPLE: Final = Path(__file__).resolve().parents[1]


class StageFailed(Exception):
    """The trial cannot be set up; the message says what to do."""


class Stage:
    """Everything that a trial runs on. A context manager: what it started is gone afterwards, also after Ctrl-C."""

    lease_seconds: Final = duration("lease", SETTINGS["RUNCLAIM_LEASE"]).total_seconds()

    def __init__(self, *, ledger: str, clone: str, linger: float) -> None:
        self._ledger, self._clone, self._linger = ledger, clone, linger
        self._exits = ExitStack()
        self.workers: list[Process] = []
        #: What the forge signs its deliveries with.
        self.secret = secrets.token_hex()

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="runclaim-demo-"))
        self._guard = Guard(self.folder)
        self.forge_file, self._forge_port = self.folder / "forge.db", free_port()
        self._exits.callback(self._guard.close)
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not leave half of it behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._exits.close()

    def set_up(self, screen: Screen) -> None:
        """Start everything and say what was chosen. Raises: StageFailed, ServerMissing, RuntimeError."""
        self.url = self._make_ledger(screen)
        self.broker = self._exits.enter_context(valkey())
        self.middleman = Thrice(int(self.broker.url.rpartition(":")[2].partition("/")[0]))
        self._exits.callback(self.middleman.close)
        screen.say(f"broker      {self.broker.how}, private, keeps nothing on disk")
        screen.say(f"middleman   a proxy before the broker delivers every task message {TIMES} times")
        self._prepare_environment()
        self._start_forge(screen)
        record.metadata.create_all(self.engine)
        self._start_celery(screen)

    @property
    def _forge_url(self) -> str:
        return f"http://127.0.0.1:{self._forge_port}"

    @property
    def engine(self) -> Engine:
        """The database of ledger and rows, for whoever watches."""
        return record.engine(self.url)

    def calm_down(self) -> None:
        """Tell the bodies that the faults are over: they no longer linger. The forge is what it is, to the end."""
        (self.folder / "faults-are-over").touch()

    def let_linger(self, seed: int) -> None:
        """Tell the bodies that faults may come, and the forge to misbehave from its next request on."""
        (self.folder / "faults-are-over").unlink(missing_ok=True)
        self.spoil_forge(seed)

    def spoil_forge(self, seed: int, **more: Any) -> None:
        """Have the forge misbehave from its next request on; `first` is what its first posts meet."""
        self._tell_forge({"seed": seed, **_MOODS, **more})

    def end_beat(self) -> None:
        """A bare chain has no use for it."""
        self._beat.ask_to_stop()
        self._beat.end(patience=2.0)

    def stop_workers(self) -> None:
        """End the workers in order, so that they write what they have counted."""
        ends = time.monotonic() + _STOP_SECONDS
        for each in self.workers:
            each.ask_to_stop()
        for each in self.workers:
            each.end(patience=max(0.0, ends - time.monotonic()))

    def keep(self) -> str:
        """Leave folder and database where they are; returns where that is."""
        self._guard.keep()
        return f"{self.folder} (logs, body starts) and {make_url(self.url).render_as_string()}"

    def _start_forge(self, screen: Screen) -> None:
        self.forge = forge(self.forge_file, self._forge_port, self._guard, os.environ)
        self._exits.callback(self.forge.end)
        self.forge.start()
        self.forge.wait_until(b" ready.")
        screen.say("forge       a stand-in with GitHub's endpoints, which loses replies and answers 500 after applying")

    def _tell_forge(self, plan: dict[str, Any]) -> None:
        request = Request(f"{self._forge_url}/control/faults", data=json.dumps(plan).encode(), method="PUT")  # noqa: S310 - ours
        ends = time.monotonic() + _FORGE_SECONDS
        while True:
            try:
                urlopen(request, timeout=_FORGE_SECONDS).close()  # noqa: S310 - as above
            except URLError as error:  # it was killed, and starts
                if time.monotonic() > ends:
                    raise StageFailed(f"the forge does not answer: {error.reason}") from error
                time.sleep(0.1)
            else:
                return

    def _start_celery(self, screen: Screen) -> None:
        self.workers = [worker(name, self._guard, os.environ) for name in _WORKERS]
        self._beat = beat(self._guard, os.environ)
        for process in (*self.workers, self._beat):
            self._exits.callback(process.end)
            process.start()
        for each in self.workers:
            each.wait_until(b" ready.")
        waits = ", ".join(f"{name.removeprefix('RUNCLAIM_').lower()} {value}" for name, value in SETTINGS.items())
        screen.say(f"workers     {len(self.workers)} of celery worker -c 2, and one celery beat")
        screen.say(f"settings    {waits}")
        screen.say(f"bodies      do the real work and wait {self._linger:.1f} s, so that faults have something to hit")

    def _prepare_environment(self) -> None:
        """What workers and this process share; what a user's shell has set for other applications stays out."""
        for name in [name for name in os.environ if name.startswith(("RUNCLAIM_", "CELERY_", "REVIEW_"))]:
            del os.environ[name]
        os.environ |= SETTINGS | {
            "RUNCLAIM_DATABASE_URL": self.url,
            "CELERY_BROKER_URL": self.middleman.url,
            "REVIEW_FOLDER": str(self.folder),
            "REVIEW_LINGER": str(self._linger),
            "REVIEW_CLONE": self._clone,
            "REVIEW_FORGE_URL": self._forge_url,
            "REVIEW_WEBHOOK_SECRET": self.secret,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_EXAMPLE), os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
        }

    def _make_ledger(self, screen: Screen) -> str:
        if self._ledger == "sqlite":
            url = f"sqlite:///{self.folder / 'ledger.db'}"
            screen.say(f"ledger      SQLite, {self.folder / 'ledger.db'}")
        else:
            url = self._make_database(screen)
        migrations.upgrade(Database(url, patience=duration("patience", "10s")))
        return url

    def _make_database(self, screen: Screen) -> str:
        if not self._ledger.startswith("postgresql+psycopg://"):
            raise StageFailed(
                f"--ledger {self._ledger!r} is neither. Use: --ledger sqlite, or"
                " --ledger postgresql+psycopg://user@host/database"
            )
        name = self.folder.name.replace("-", "_").lower()
        try:
            server = create_engine(self._ledger, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
            with server.connect() as conn:
                version = str(conn.execute(text("SHOW server_version")).scalar()).split()[0]
                conn.execute(text(f'CREATE DATABASE "{name}"'))
        except ModuleNotFoundError:
            raise StageFailed('PostgreSQL needs a driver. Get it: pip install "psycopg[binary]"') from None
        except SQLAlchemyError as error:
            said = str(getattr(error, "orig", error)).strip().splitlines()[0]
            raise StageFailed(
                f"PostgreSQL says: {said}. Name a server that runs and a user who may create databases"
            ) from error
        self._exits.callback(self._drop_database, server, name)
        url = make_url(self._ledger).set(database=name)
        screen.say(
            f"ledger      PostgreSQL {version} on {url.host or 'this machine'}, database {name} made for this demo"
        )
        return url.render_as_string(hide_password=False)

    def _drop_database(self, server: Engine, name: str) -> None:
        if not self._guard.keeps:
            with server.connect() as conn:
                conn.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        server.dispose()
