"""
The settings of runclaim: explicit arguments over RUNCLAIM_* variables over Celery's `runclaim_*` keys.

Durations are `timedelta`; in the environment and in Celery's configuration they may be text such as
`90`, `90s`, `5m`, `2h` or `30d`. Everything is checked once, at the start.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runclaim import local_folder
from runclaim.errors import ConfigError
from runclaim.spelling import refuse_unread
from runclaim.urls import settled, sqlite_url

if TYPE_CHECKING:
    from collections.abc import Mapping

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_LONGEST_RELEASE: Final = 100
_UNITS: Final = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting with its default. The names are the keyword arguments of `Runclaim`."""

    #: Where the ledger lives: `postgresql://…` or `sqlite:///file`. A laptop needs nothing else.
    database_url: str = f"sqlite:///{local_folder.NAME}/{local_folder.LEDGER}"
    #: The schema of PostgreSQL that has the tables; empty for the first one of the role's search path.
    schema: str = ""
    #: The project that this application's runs belong to.
    project: str = "default"
    #: What this release of the application is called, such as a version or a commit; empty to name each flow's release
    #: after its declaration.
    release: str = ""
    #: How long a claim is safe without a heartbeat. Four beats a lease, and room for a body that holds the GIL.
    lease: timedelta = timedelta(seconds=60)
    #: When a claim ends even with a heartbeat, unless the phase says otherwise.
    max_duration: timedelta = timedelta(hours=1)
    #: How often beat gives lapsed claims back.
    rescue_every: timedelta = timedelta(seconds=15)
    #: How often beat publishes what is due: the resolution of delays and backoff.
    dispatch_every: timedelta = timedelta(seconds=5)
    #: How often beat has planned actions sent: the resolution of their back-off. A fresh one is sent at once.
    deliver_every: timedelta = timedelta(seconds=5)
    #: How often beat has listeners told of events, and the totals counted. A worker that ends a phase asks at once.
    tell_every: timedelta = timedelta(seconds=5)
    #: A queued run whose message seems lost is published again after this, then after twice this, and so on.
    dispatch_after: timedelta = timedelta(seconds=30)
    #: Whether short phases may share messages and commits. A phase that Celery limits never does.
    grouped: bool = True
    #: How often beat deletes finished history.
    purge_every: timedelta = timedelta(hours=1)
    #: The longest that publishing may hold up an enqueue when the broker does not answer.
    publish_timeout: timedelta = timedelta(seconds=2)
    #: How long a verb keeps trying while the database cannot be reached.
    ledger_patience: timedelta = timedelta(seconds=10)
    #: How long the same payload of a webhook is dropped: the double click, the sender that sends twice at once.
    dedup_window: timedelta = timedelta(seconds=10)
    #: How long a webhook's delivery id is remembered. GitHub offers deliveries again for three days.
    keep_deliveries: timedelta = timedelta(days=4)
    #: How often beat forgets closed dedup windows.
    forget_every: timedelta = timedelta(seconds=60)
    #: `text` leaves Celery's log format alone; `json` makes each line of workers and beat one JSON object.
    log_format: str = "text"
    #: A file that worker and beat touch while they live, for health checks; empty for none.
    alive_file: str = ""
    keep_succeeded: timedelta = timedelta(days=30)
    keep_failed: timedelta = timedelta(days=90)
    keep_canceled: timedelta = timedelta(days=30)
    keep_superseded: timedelta = timedelta(days=7)
    #: How long a run key is remembered after its run was enqueued; it outlives the purged run.
    keep_keys: timedelta = timedelta(days=90)
    #: Where workers keep what fail-open flows did while the ledger was away; on a disk that survives a restart.
    fail_open_folder: str = f"{local_folder.NAME}/fail-open"
    #: How many runs a token may enqueue through the API in a window, and how often it may cancel or retry any.
    api_rate: str = "600/minute"
    #: Where that is counted: `memory://`, each process for itself, or `redis://…` for all of them.
    api_rate_storage: str = "memory://"
    #: How many runs of a project may be alive before the API makes no more.
    api_live_runs: int = 100_000
    #: How many answers to requests with an Idempotency-Key may be kept for a project.
    api_answers: int = 2_000_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, timedelta) and value <= timedelta(0):
                raise ConfigError(f"{field.name} must be greater than zero, not {value}")
            if isinstance(value, int) and not isinstance(value, bool) and value <= 0:
                raise ConfigError(f"{field.name} must be greater than zero, not {value}")
        if len(self.release) > _LONGEST_RELEASE or not self.release.isprintable():
            raise ConfigError(f"release is {self.release!r:.40}; use at most {_LONGEST_RELEASE} printable characters")
        if self.log_format not in {"text", "json"}:
            raise ConfigError(f"log_format is {self.log_format!r}; use text or json")
        # Once, here: a process that changes its working directory later stays with its ledger, records and file.
        object.__setattr__(self, "database_url", settled(self.database_url, self.schema))
        for name in ("fail_open_folder", "alive_file"):
            if path := getattr(self, name):
                object.__setattr__(self, name, os.path.abspath(path))  # noqa: PTH100 - links may change


def duration(name: str, value: Any) -> timedelta:
    """A `timedelta` from a `timedelta`, a number of seconds, or text such as `5m`. Raises: ConfigError."""
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(str(value).strip())
    if found is not None:
        with suppress(OverflowError):
            return timedelta(**{_UNITS[found[2] or "s"]: float(found[1])})
    raise ConfigError(f"{name} is {value!r}; write seconds or a number with ms, s, m, h or d, such as 90s")


def from_environment(environ: Mapping[str, str], name: str) -> str | None:
    """The variable, or the content of the file that `NAME_FILE` names: how containers are given secrets."""
    if (value := environ.get(name)) or not (path := environ.get(f"{name}_FILE")):
        return value
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}_FILE names {path}, which cannot be read: {error}") from None


def _switch(name: str, value: Any) -> bool:
    """A switch from a bool or from text. Raises: ConfigError."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    found = words.get(str(value).strip().lower())
    if found is None:
        raise ConfigError(f"{name} is {value!r}; write true or false")
    return found


def _number(name: str, value: Any) -> int:
    """A number from one or from text. Raises: ConfigError."""
    if not isinstance(value, bool) and str(value).strip().isascii() and str(value).strip().isdigit():
        return int(value)
    raise ConfigError(f"{name} is {value!r}; write a whole number")


def resolve(explicit: Mapping[str, Any], environ: Mapping[str, str], celery: Mapping[str, Any]) -> Config:
    """The configuration from its three sources, the first that names a setting wins. Raises: ConfigError."""
    known = {field.name: field for field in fields(Config)}
    if unknown := sorted(set(explicit) - set(known)):
        raise ConfigError(f"unknown setting {', '.join(unknown)}; the settings are {', '.join(known)}")
    refuse_unread(known, environ, celery)
    found: dict[str, Any] = {}
    for name, field in known.items():
        value, _ = _first_source(name, explicit, environ, celery)
        if value is not None:
            convert = {"timedelta": duration, "bool": _switch, "int": _number}.get(str(field.type))
            found[name] = str(value) if convert is None else convert(name, value)
    if "database_url" not in found:
        folder = local_folder.nearest()
        _refuse_former_ledger(folder)
        found["database_url"] = sqlite_url(folder / local_folder.LEDGER)
    if "fail_open_folder" not in found:
        found["fail_open_folder"] = str(local_folder.nearest() / "fail-open")
    return Config(**found)


def _refuse_former_ledger(folder: Path) -> None:
    """Raises: ConfigError where the runs of an earlier release would be left in a file that is no longer used."""
    former, ledger = folder.parent / "runclaim.db", folder / local_folder.LEDGER
    if os.path.exists(former) and not os.path.exists(ledger):  # noqa: PTH110 - false where this user may not look
        raise ConfigError(
            f"{former} is the ledger of an earlier release; the default is now {ledger}. Stop what uses it and move it"
            f" there with its -wal and -shm, if it has them; or keep it: set RUNCLAIM_DATABASE_URL={sqlite_url(former)}"
        )


def sources(explicit: Mapping[str, Any], environ: Mapping[str, str], celery: Mapping[str, Any]) -> dict[str, str]:
    """Setting → where its value comes from: `argument`, the variable, Celery's key, or `default`."""
    return {field.name: _first_source(field.name, explicit, environ, celery)[1] for field in fields(Config)}


def _first_source(
    name: str, explicit: Mapping[str, Any], environ: Mapping[str, str], celery: Mapping[str, Any]
) -> tuple[Any, str]:
    """What the first source that names a setting says, and which that is."""
    if explicit.get(name) is not None:
        return explicit[name], "argument"
    variable, key = f"RUNCLAIM_{name.upper()}", f"runclaim_{name}"
    if value := from_environment(environ, variable):
        return value, variable if environ.get(variable) else f"{variable}_FILE"
    # False is a value, where a variable can only be empty or not.
    if (value := celery.get(key)) not in {None, ""}:
        return value, key
    return None, "default"
