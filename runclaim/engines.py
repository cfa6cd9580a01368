"""Engines: how a connection to each kind of database is set up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, create_engine, event

from runclaim.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: An option of our connections to PostgreSQL: `$1` is the driver's own mark there, and identifiers come as text.
OURS: Final = "runclaim_prepares"
#: Inputs and results stand in no error: SQLAlchemy would show them, and cut, so that a secret may look like none.
_QUIET: Final[dict[str, Any]] = {"hide_parameters": True}
_POSTGRESQL_ARGS: Final[dict[str, Any]] = {
    "application_name": "runclaim",
    "connect_timeout": 5,
    # A half-open connection is given up after this, not after the kernel's fifteen minutes.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # A statement is a transaction by itself, unless somebody begins one.
    "autocommit": True,
}


def new_engine(url: URL, pool_size: int) -> Engine:
    """An engine; it connects to nothing yet."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, max_overflow=20, connect_args={"timeout": 15.0}, pool_size=pool_size, **_QUIET)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    from psycopg import RawCursor

    url, prepares = _prepares(url)
    # The statement goes to the server as it is compiled. Otherwise psycopg reads it once more for placeholders of its
    # own, and remembers what it found in short statements only.
    engine = create_engine(
        url,
        paramstyle="numeric_dollar",
        # Which we have no use for: it takes a transaction to look for it.
        use_native_hstore=False,
        max_overflow=20,
        pool_timeout=10,
        connect_args={**_POSTGRESQL_ARGS, **prepares, "cursor_factory": RawCursor},
        pool_size=pool_size,
        execution_options={OURS: True},
        **_QUIET,
    )
    event.listen(engine, "connect", _prepare_postgresql)
    event.listen(engine, "begin", _begin_postgresql)
    event.listen(engine, "checkin", _end_postgresql)
    return engine


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


def _begin_postgresql(conn: Connection) -> None:
    options = conn.get_execution_options()
    alone = options.get("runclaim_at_once") or options.get("runclaim_reads")
    if not (alone or options.get("isolation_level") == "AUTOCOMMIT"):
        # No word to the server: the driver sends BEGIN with the first statement.
        conn.connection.driver_connection.autocommit = False  # type: ignore[union-attr]


def _end_postgresql(raw: Any, _record: Any) -> None:
    if raw is not None and not raw.closed and not raw.autocommit:
        raw.autocommit = True


def _prepare_sqlite(raw: Any, _record: Any) -> None:
    raw.isolation_level = None  # the driver's own transactions would leave SELECTs outside
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=15000"):
        raw.execute(f"PRAGMA {pragma}")


def _begin_sqlite(conn: Connection) -> None:
    # A transaction that reads first and writes later fails at once under contention: take the write lock first.
    reads = conn.get_execution_options().get("runclaim_reads", False)
    conn.exec_driver_sql("BEGIN DEFERRED" if reads else "BEGIN IMMEDIATE")
