"""
The database's clock, and instants and durations as both databases count them.

Nothing compares a time of this process with a time of the ledger. PostgreSQL: `timestamptz` and
`clock_timestamp()` behind the function `runclaim_now()`. SQLite: whole microseconds since 1970 from
`julianday('now')`. Tests move the clock by replacing that one function.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, DateTime, Double, TypeDecorator, case, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RFC3339: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


class Instant(TypeDecorator[datetime]):
    """An aware point in time, read in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column's type on each database."""
        return dialect.type_descriptor(BigInteger() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """What the driver is given."""
        if value is None or dialect.name != "sqlite":
            return value
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """What the driver gave, as Python has it."""
        if value is None:
            return None
        if dialect.name == "sqlite":
            return _EPOCH + timedelta(microseconds=value)
        found: datetime = value.astimezone(UTC)
        return found


class now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock at the moment the row is written, not at the start of the statement."""

    type = Instant()
    inherit_cache = True


@compiles(now, "postgresql")
def _now_postgresql(_element: now, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "runclaim_now()"


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: SQLCompiler, **_kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)"


class shifted(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """`shifted(instant, seconds)`: the instant that many seconds later; both are SQL expressions."""

    type = Instant()
    inherit_cache = True

    def __init__(self, instant: ColumnElement[Any] | now, seconds: ColumnElement[Any]) -> None:
        super().__init__(instant, type_coerce(seconds, Double()))


@compiles(shifted, "postgresql")
def _shifted_postgresql(element: shifted, compiler: SQLCompiler, **kw: Any) -> str:
    instant, seconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({instant} + make_interval(secs => {seconds}))"


@compiles(shifted, "sqlite")
def _shifted_sqlite(element: shifted, compiler: SQLCompiler, **kw: Any) -> str:
    instant, seconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({instant} + CAST(({seconds}) * 1000000 AS INTEGER))"


def earlier(left: ColumnElement[Any], right: ColumnElement[Any]) -> ColumnElement[Any]:
    """The earlier of two instants."""
    return case((left < right, left), else_=right)


def rfc3339(moment: datetime | None) -> str | None:
    """An instant as JSON has it: RFC 3339 in UTC with microseconds; `None` for none."""
    return None if moment is None else moment.astimezone(UTC).strftime(_RFC3339)


def from_rfc3339(text: str) -> datetime:
    """The instant that `rfc3339` has written. Raises: ValueError."""
    return datetime.strptime(text, _RFC3339).replace(tzinfo=UTC)
