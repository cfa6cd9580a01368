"""An application's own Alembic project in the ledger's database: neither of the two touches the other's tables."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from runclaim import migrations
from runclaim.alembic import include_name
from runclaim.database import Database
from runclaim.models import metadata
from tests.harness.ledgers import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Project = Callable[..., Config]

PATIENCE = timedelta(seconds=10)
ENV = """
from alembic import context
from sqlalchemy import Column, Integer, MetaData, NullPool, Table, create_engine

{first}

metadata = MetaData()
Table("orders", metadata, Column("id", Integer, primary_key=True))
with create_engine("{url}", poolclass=NullPool).connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, include_schemas={schemas}, {options})
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
"""
HELPER = ("from runclaim.alembic import include_name", "include_name=include_name")
OWN = (
    """
from runclaim.alembic import include_name as is_not_the_ledgers

def include_name(name, type_, parent_names):
    return is_not_the_ledgers(name, type_, parent_names) and name != "legacy"
""",
    "include_name=include_name",
)


@pytest.fixture
def project(tmp_path: Path, database_url: str) -> Project:
    """An Alembic project as `alembic init` makes it, with this `env.py`."""

    def make(first: str = "", options: str = "", *, schemas: bool = False) -> Config:
        config = Config(tmp_path / "alembic.ini", stdout=StringIO())
        if not (tmp_path / "migrations").exists():
            command.init(config, str(tmp_path / "migrations"))
        config.set_main_option("script_location", str(tmp_path / "migrations"))
        config.set_main_option("path_separator", "os")
        env = ENV.format(url=database_url, first=first, options=options, schemas=schemas)
        (tmp_path / "migrations" / "env.py").write_text(env)
        return config

    return make


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The database that both use, with the ledger in it."""
    found = Database(database_url, patience=PATIENCE)
    migrate(found)
    yield found
    found.close()


def proposed(config: Config) -> str:
    """What `alembic revision --autogenerate` writes."""
    script = command.revision(config, autogenerate=True, message="next")
    return Path(script.path).read_text()


def versions(database: Database, table: str) -> list[str]:
    with database.read() as conn:
        return list(conn.exec_driver_sql(f"SELECT version_num FROM {table}").scalars())


def test_without_the_helper_alembic_proposes_to_drop_the_ledger(database: Database, project: Project):
    """What the helper is for; once this fails, it is not needed."""
    assert "op.drop_table('runclaim_runs')" in proposed(project())


@pytest.mark.parametrize("how", [HELPER, OWN], ids=["alone", "inside the application's own"])
@pytest.mark.parametrize("schemas", [False, True])
def test_an_application_s_alembic_proposes_its_own_tables_and_nothing_of_the_ledger(
    database: Database, project: Project, how: tuple[str, str], schemas: bool
):
    if schemas and database.file is None:
        with database.begin() as conn:
            conn.exec_driver_sql("CREATE SCHEMA apart")
        apart = Database(f"{database.url.render_as_string(hide_password=False)}?schema=apart", patience=PATIENCE)
        migrations.upgrade(apart)
        apart.close()
    with database.begin() as conn:
        # Of a later release, which this one does not know.
        conn.exec_driver_sql("CREATE TABLE runclaim_of_later (id INTEGER PRIMARY KEY)")
        conn.exec_driver_sql("CREATE INDEX ix_runclaim_of_later ON runclaim_of_later (id)")
    config = project(*how, schemas=schemas)
    first = proposed(config)
    command.upgrade(config, "head")
    command.check(config)

    assert "op.create_table('orders'" in first
    assert "runclaim" not in first


def test_each_has_a_table_of_its_own_for_its_revision(database_url: str, project: Project):
    """
    INVARIANT: neither side's upgrade moves the other's revision or tables, whichever comes first.

    Breaks if the ledger's revision is kept in Alembic's default table, which is the application's.
    """
    config = project(*HELPER)
    command.revision(config, autogenerate=True, message="first")
    command.upgrade(config, "head")
    database = Database(database_url, patience=PATIENCE)
    theirs = versions(database, "alembic_version")
    migrations.upgrade(database)
    after_ours = versions(database, "alembic_version")
    ours = versions(database, migrations.VERSION_TABLE)
    command.downgrade(config, "base")
    with database.read() as conn:
        left = set(inspect(conn).get_table_names())
    database.close()

    assert ScriptDirectory.from_config(config).get_heads() == theirs == after_ours
    assert [migrations.HEAD] == ours
    assert {*metadata.tables, migrations.VERSION_TABLE, "alembic_version"} == left


@pytest.mark.parametrize(
    "name, kind, expected",
    [
        ("orders", "table", True),
        ("runclaim_runs", "table", False),
        ("my_runclaim_runs", "table", True),
        ("runclaim_plans", "column", True),
        ("runclaim", "schema", True),
        (None, "schema", True),
    ],
)
def test_only_tables_with_the_ledger_s_prefix_are_left_out(name: str | None, kind: str, expected: bool):
    assert expected == include_name(name, kind, {})
