"""The declarative base: every constraint and index has a name, so errors are told apart by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import MetaData, event
from sqlalchemy.orm import DeclarativeBase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Table

#: Where a table's `info` has its storage parameters on PostgreSQL.
STORAGE: Final = "runclaim_storage"


class Base(DeclarativeBase):
    """All tables of the ledger. They share one prefix: they may be in an application's own database."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


@event.listens_for(Base.metadata, "after_create")
def _store(_metadata: MetaData, conn: Connection, tables: Iterable[Table], **_rest: Any) -> None:
    """Set what SQLAlchemy 2.0 has no argument of a table for."""
    for table in tables if conn.dialect.name == "postgresql" else ():
        if settings := table.info.get(STORAGE):
            listed = ", ".join(f"{name} = {value}" for name, value in settings.items())
            conn.exec_driver_sql(f"ALTER TABLE {table.name} SET ({listed})")
