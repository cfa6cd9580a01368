"""
Many rows as one parameter: the table a verb joins with, so that one statement serves one run or a thousand.

The text of a statement does not depend on how many rows it gets, so a kept connection prepares it once; but for the
few rows that `runclaim.sql.prepared` has written out, a parameter a column.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Text, TypeDecorator, Uuid, bindparam, column
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import TableClause
from sqlalchemy.sql.functions import FunctionElement

from runclaim.codec import opened, opened_text, sealed_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import ColumnElement, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine


_NOBODYS: Final = str(UUID(int=0))
#: Between rowset, row and column in the name of a parameter.
_CELL: Final = "__"


def as_id(text: str) -> str:
    """The identifier that `text` spells; for any other text one that no row has, so that asking finds nothing."""
    try:
        return str(UUID(text))
    except ValueError:
        return _NOBODYS


class Id(TypeDecorator[str]):
    """An identifier: `uuid` on PostgreSQL, 36 characters on SQLite; always text in Python."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column's type on each database."""
        return dialect.type_descriptor(Uuid(as_uuid=False) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - the same on both
        """What the driver is given."""
        return None if value is None else as_id(value)


class Json(TypeDecorator[Any]):
    """Any JSON value: `jsonb` on PostgreSQL, text on SQLite (whose JSON affinity would turn text into numbers)."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column's type on each database."""
        return dialect.type_descriptor(JSONB() if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """What the driver is given."""
        return value if value is None or dialect.name == "postgresql" else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """What the driver gave, as Python has it."""
        return opened(value if value is None or dialect.name == "postgresql" else json.loads(value))


class Sealed(TypeDecorator[str]):
    """A text of the application, which its codec encodes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the same on both
        """What the driver is given."""
        return sealed_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - the same on both
        """What the driver gave, as Python has it."""
        return opened_text(value)


class Verbatim(Json):
    """
    JSON that is handed over to be returned later: kept to the letter, `json` on PostgreSQL.

    `jsonb` sorts keys, makes an integer of 1e22 and takes the sign of -0.0: what is read would depend on whether it
    came from the ledger or from the memory of the process that wrote it.
    """

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column's type on each database."""
        return dialect.type_descriptor(JSON() if dialect.name == "postgresql" else Text())


class Rowset(TableClause):
    """A table whose rows come in the statement's parameter of the same name, as `pack` makes it."""

    inherit_cache = True


class Few(Rowset):
    """A rowset whose rows a statement looks up in a table, each by an index; see `few`."""

    inherit_cache = True


def few(rows: Rowset) -> Few:
    """
    The same rows, planned as one row; PostgreSQL assumes a hundred for any set from JSON.

    For a hundred it would rather read a whole table that was small when it planned, and keep to that plan while the
    table grows.
    """
    return Few(rows.name, *(column(found.name, found.type) for found in rows.columns))


def rowset(name: str, /, **columns: TypeEngine[Any] | type[TypeEngine[Any]]) -> Rowset:
    """Declare a rowset; JSON columns are declared `Text` and turned into JSON by `as_json`."""
    return Rowset(name, *(column(label, kind) for label, kind in columns.items()))


def pack(rows: Iterable[Mapping[str, Any]]) -> str:
    """The value of a rowset's parameter."""
    return msgspec.json.encode(list(rows)).decode()


def cell_of(parameter: str) -> tuple[str, int, str] | None:
    """The rowset, row and column whose value a parameter of a written out row has; `None` for any other parameter."""
    match parameter.split(_CELL):
        case [name, row, column]:
            return name, int(row), column
    return None


@compiles(Rowset, "postgresql")
def _rowset_postgresql(
    element: Rowset, compiler: SQLCompiler, *, asfrom: bool = False, few: Mapping[str, int] | None = None, **_kw: Any
) -> str:
    if not asfrom:
        return element.name
    kinds = compiler.dialect.type_compiler_instance
    typed = [(found.name, kinds.process(found.type)) for found in element.columns]
    if few and element.name in few:
        rows = ", ".join(_written_out(element.name, row, typed, compiler) for row in range(few[element.name]))
        return f"(VALUES {rows}) AS {element.name}({', '.join(name for name, _ in typed)})"
    rows = compiler.process(bindparam(element.name, type_=Text()))
    shape = ", ".join(f"{name} {kind}" for name, kind in typed)
    found = f"jsonb_to_recordset(CAST({rows} AS JSONB)) AS {element.name}({shape})"
    if isinstance(element, Few):
        # No limit, which is not known when the statement is planned: a tenth is expected, and twice that is one row.
        for _ in range(2):
            found = f"(SELECT * FROM {found} LIMIT (SELECT CAST(NULL AS BIGINT))) AS {element.name}"  # noqa: S608
    return found


def _written_out(rowset_name: str, row: int, typed: Iterable[tuple[str, str]], compiler: SQLCompiler) -> str:
    cells = (
        f"CAST({compiler.process(bindparam(f'{rowset_name}{_CELL}{row}{_CELL}{name}'))} AS {kind})"
        for name, kind in typed
    )
    return f"({', '.join(cells)})"


@compiles(Rowset, "sqlite")
def _rowset_sqlite(element: Rowset, compiler: SQLCompiler, *, asfrom: bool = False, **_kw: Any) -> str:
    if not asfrom:
        return element.name
    shape = ", ".join(f"json_extract(value, '$.{found.name}') AS {found.name}" for found in element.columns)
    rows = compiler.process(bindparam(element.name, type_=Text()))
    # All of it is names from declarations; the values are in the parameter.
    return f"(SELECT {shape} FROM json_each({rows})) AS {element.name}"  # noqa: S608


class as_json(FunctionElement[Any]):  # noqa: N801 - reads as the SQL function it is
    """The JSON value of an expression that holds JSON text."""

    type = Json()
    inherit_cache = True

    def __init__(self, text: ColumnElement[str]) -> None:
        super().__init__(text)


class verbatim(as_json):  # noqa: N801 - reads as the SQL function it is
    """The same, to the letter: for columns that are `Verbatim`."""

    type = Verbatim()
    inherit_cache = True


@compiles(as_json, "postgresql")
def _as_json_postgresql(element: as_json, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS JSONB)"


@compiles(verbatim, "postgresql")
def _verbatim_postgresql(element: verbatim, compiler: SQLCompiler, **kw: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **kw)} AS JSON)"


@compiles(as_json, "sqlite")
def _as_json_sqlite(element: as_json, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)
