"""Engines: how a connection to each kind of database is set up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DisconnectionError

from runclaim.errors import ConfigError
from runclaim.sql import ledger_file, schemas
from runclaim.sql.trouble import poisons
from runclaim.sql.watchdog import LEAST_SECONDS, WATCHDOG, current
from runclaim.urls import schema_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine import Dialect, ExceptionContext

#: An option of our connections to PostgreSQL: `$1` is the driver's own mark there, and identifiers come as text.
OURS: Final = "runclaim_prepares"
#: What we keep with each connection.
FILE: Final = "runclaim_file"
_WATCHED: Final = "runclaim_watched"
_WAITS: Final = "runclaim_waits"
#: No error contains inputs or results: SQLAlchemy would show them cut, so that a secret may not look like one.
_QUIET: Final[dict[str, Any]] = {"hide_parameters": True}
_POSTGRESQL_ARGS: Final[dict[str, Any]] = {
    "application_name": "runclaim",
    "connect_timeout": 5,
    # A half-open connection is given up after this, not after the kernel's fifteen minutes.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # A statement is a transaction by itself, unless one is begun explicitly.
    "autocommit": True,
    # Whatever the role, the database or PGCLIENTENCODING says: the ledger holds any text.
    "client_encoding": "utf8",
}


#: How long SQLite waits for the lock of another writer; less where the verb's patience is less. In milliseconds.
_BUSY: Final = 15_000
_POOL_SECONDS: Final = 10.0
#: What part of a verb's patience one wait for a lock may take, and how many seconds at the least.
_OF_PATIENCE: Final = 0.9
_SHORTEST_WAIT: Final = 0.1


def new_engine(url: URL, pool_size: int, patience: float) -> Engine:
    """An engine; it connects to nothing yet. No call waits longer than `patience`, in seconds, for a connection."""
    pool: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": 20,
        "pool_timeout": min(_POOL_SECONDS, max(patience, LEAST_SECONDS)),
    }
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _BUSY / 1000}, **pool, **_QUIET)
        event.listen(engine, "do_connect", _open_sqlite)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "checkout", _require_file)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    raw_cursor = _driver().RawCursor
    url, prepares = _prepares(url)
    schema = schema_of(url)
    # The statement goes to the server as it is compiled. Otherwise psycopg reads it once more for placeholders of its
    # own, and remembers what it found in short statements only.
    engine = create_engine(
        url.difference_update_query(["schema"]),
        paramstyle="numeric_dollar",
        # Which we have no use for: it takes a transaction to look for it.
        use_native_hstore=False,
        connect_args={**_POSTGRESQL_ARGS, **prepares, "cursor_factory": raw_cursor},
        execution_options={OURS: True, schemas.OPTION: schema},
        **pool,
        **_QUIET,
    )
    event.listen(engine, "do_connect", _limit_connect)
    event.listen(engine, "connect", _prepare_postgresql)
    # A pooler that hands sessions on would hand their settings on too.
    is_pooled = prepares.get("prepare_threshold", 0) is None
    if not is_pooled:
        event.listen(engine, "connect", _lock_timeout(patience))
    if schema is not None:
        event.listen(engine, "connect", (schemas.require if is_pooled else schemas.choose)(schema))
    event.listen(engine, "checkout", _watch)
    event.listen(engine, "begin", _begin_postgresql)
    event.listen(engine, "checkin", _end_postgresql)
    event.listen(engine, "handle_error", _throw_away)
    return engine


def _driver() -> Any:
    """The module psycopg. Raises: ConfigError, which says what to install."""
    try:
        import psycopg
    except ImportError as error:
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be loaded ({error})"
        raise ConfigError(
            f"the ledger is on PostgreSQL, and its driver psycopg {why}: pip install 'runclaim[postgres]'"
        ) from error
    return psycopg


def _prepares(url: URL) -> tuple[URL, dict[str, int | None]]:
    """
    The URL without its `prepare_threshold`, and what the driver is to be told instead: it takes no text there.

    `none` is for poolers that hand a session to another client after each transaction. Raises: ConfigError.
    """
    told = url.query.get("prepare_threshold")
    if told is None:
        return url, {}
    if told != "none" and not (isinstance(told, str) and told.isdecimal()):
        raise ConfigError(f"prepare_threshold in database_url is {told!r}; write none or a number")
    return url.difference_update_query(["prepare_threshold"]), {
        "prepare_threshold": None if told == "none" else int(told)
    }


def _prepare_postgresql(raw: Any, _record: Any) -> None:
    from psycopg.types.string import TextLoader

    # As the models have identifiers; objects of UUID would be made only to be written out again.
    raw.adapters.register_loader("uuid", TextLoader)
    # The server has told it with its greeting. The driver reads no other style; a pooler hands the setting on.
    if not (raw.info.parameter_status("DateStyle") or "").startswith("ISO"):
        raw.execute("SET datestyle TO ISO")


def _lock_timeout(patience: float) -> Callable[[Any, Any], None]:
    """
    Let the server give up waiting for a lock before the verb does, so that nothing waits there in vain.

    One round trip for each session, and none for each transaction. A limit that the role or the database has stays.
    """
    milliseconds = round(max(_SHORTEST_WAIT, patience * _OF_PATIENCE) * 1000)
    limit = f"SELECT set_config('lock_timeout', '{milliseconds}', false) WHERE current_setting('lock_timeout') = '0'"

    def set_limit(raw: Any, _record: Any) -> None:
        raw.execute(limit)

    return set_limit


def _begin_postgresql(conn: Connection) -> None:
    options = conn.get_execution_options()
    alone = options.get("runclaim_at_once") or options.get("runclaim_reads")
    if not (alone or options.get("isolation_level") == "AUTOCOMMIT"):
        # No word to the server: the driver sends BEGIN with the first statement.
        conn.connection.driver_connection.autocommit = False  # type: ignore[union-attr]


def _limit_connect(_dialect: Dialect, _record: Any, _args: Any, arguments: dict[str, Any]) -> None:
    # The driver gives each host that much, and none less than it has to.
    if (limit := current()) is not None:
        hosts = str(arguments.get("host", "")).count(",") + 1
        left = max(LEAST_SECONDS, math.ceil(limit.left / hosts))
        arguments["connect_timeout"] = min(arguments["connect_timeout"], left)


def _watch(raw: Any, record: Any, _proxy: Any) -> None:
    if (limit := current()) is not None:
        record.info[_WATCHED] = WATCHDOG.watch(raw, limit)


def _throw_away(context: ExceptionContext) -> None:
    # Every session of the pool may be like this one. A savepoint is the application's, which may have counted on it.
    conn = context.connection
    if poisons(context.original_exception) and not (conn is not None and conn.in_nested_transaction()):
        context.is_disconnect = True


def _end_postgresql(raw: Any, record: Any) -> None:
    if (watched := record.info.pop(_WATCHED, None)) is not None:
        WATCHDOG.forget(watched)
    if raw is not None and not raw.closed and not raw.autocommit:
        raw.autocommit = True


def _open_sqlite(_dialect: Dialect, record: Any, args: list[Any], arguments: dict[str, Any]) -> Any:
    raw, record.info[FILE] = ledger_file.connect(Path(args[0]).absolute(), **arguments)
    return raw


def _require_file(_raw: Any, record: Any, _proxy: Any) -> None:
    if not record.info[FILE].is_there:
        # The pool connects again: to the file that is there now, if there is one.
        raise DisconnectionError


def _prepare_sqlite(raw: Any, record: Any) -> None:
    raw.isolation_level = None  # the driver's own transactions would leave SELECTs outside
    _limit_waits(raw, record.info)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        raw.execute(f"PRAGMA {pragma}")


def _limit_waits(raw: Any, info: dict[str, Any]) -> None:
    """Wait for the lock of another writer no longer than the verb has patience."""
    limit = current()
    waits = _BUSY if limit is None else min(_BUSY, round(limit.seconds * 1000))
    if info.get(_WAITS) != waits:
        # Not a statement of the verb's: it reaches no file.
        raw.execute(f"PRAGMA busy_timeout={waits}")
        info[_WAITS] = waits


def _begin_sqlite(conn: Connection) -> None:
    _limit_waits(conn.connection.driver_connection, conn.info)
    # A transaction that reads first and writes later fails at once under contention: take the write lock first.
    reads = conn.get_execution_options().get("runclaim_reads", False)
    conn.exec_driver_sql("BEGIN DEFERRED" if reads else "BEGIN IMMEDIATE")
