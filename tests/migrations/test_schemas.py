"""A schema of PostgreSQL that was chosen for the ledger: everything of the ledger is there, and nothing elsewhere."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import inspect, make_url, text

from runclaim import cli, migrations
from runclaim.database import Database
from runclaim.errors import ConfigError, LedgerRefused, SchemaBehind
from runclaim.migrations.revisions import VERSIONS, Schema
from runclaim.sql.schemas import quoted
from tests.api.served import Served, token
from tests.harness.bench import Bench
from tests.harness.command_line import runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Opener = Callable[[str], Database]

SCHEMA = 'Work "flows"'


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Databases, closed in the end."""
    databases: list[Database] = []

    def connect(url: str) -> Database:
        databases.append(Database(url, patience=timedelta(seconds=10)))
        return databases[-1]

    yield connect
    for database in databases:
        database.close()


def in_schema(url: str, schema: str = SCHEMA, **changes: str) -> str:
    return make_url(url).set(**changes).update_query_dict({"schema": schema}).render_as_string(hide_password=False)


def tables(database: Database, schema: str) -> set[str]:
    with database.read() as conn:
        return set(inspect(conn).get_table_names(schema=schema))


def test_an_upgrade_creates_the_schema_and_all_tables_in_it(postgres_url: str, opened: Opener):
    ledger = opened(in_schema(postgres_url))
    before = migrations.current(ledger)
    migrations.upgrade(ledger)

    assert (None, migrations.HEAD, []) == (before, migrations.current(ledger), migrations.differences(ledger))
    assert migrations.VERSION_TABLE in tables(ledger, SCHEMA)
    assert set() == tables(ledger, "public")


def test_a_ledger_further_down_the_search_path_is_not_taken_for_the_one_that_was_chosen(
    postgres_url: str, opened: Opener
):
    """
    INVARIANT: without tables in the chosen schema there is no ledger, whatever other schemas have.

    Breaks if a table is looked for along the search path: the application's own comes after the chosen schema.
    """
    public = opened(postgres_url)
    migrations.upgrade(public)
    ledger = opened(in_schema(postgres_url))

    assert migrations.current(ledger) is None
    with pytest.raises(SchemaBehind):
        migrations.require_current(ledger)
    migrations.upgrade(ledger)
    assert tables(public, "public") == tables(ledger, SCHEMA)
    with ledger.begin() as conn:
        conn.exec_driver_sql("DROP TABLE runclaim_tokens")
        conn.exec_driver_sql("DROP FUNCTION runclaim_now")
    assert ["runclaim_now, function", "runclaim_tokens, table"] == [
        line.split(":")[0] for line in migrations.differences(ledger)
    ]
    assert [] == migrations.differences(public)


def test_the_applications_own_tables_are_found_in_sessions_of_the_ledger(postgres_url: str, opened: Opener):
    """Breaks if the schema is all there is of the search path: a completion's functions write to those tables."""
    public = opened(postgres_url)
    with public.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE orders (name TEXT)")
    ledger = opened(in_schema(postgres_url))
    migrations.upgrade(ledger)
    with ledger.begin() as conn:
        conn.exec_driver_sql("INSERT INTO orders VALUES ('a')")

    with public.read() as conn:
        assert ["a"] == conn.exec_driver_sql("SELECT name FROM public.orders").scalars().all()


def test_commands_and_the_api_work_in_the_schema(postgres_url: str):
    bench = Bench(in_schema(postgres_url), project="shop")
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: "planned")
    bench.register(flow)
    words = ["runs", "enqueue", "review", "--input", '{"repo": "a", "number": 1, "base": "b", "head": "h"}']
    settings = {"RUNCLAIM_DATABASE_URL": postgres_url, "RUNCLAIM_SCHEMA": SCHEMA, "RUNCLAIM_PROJECT": "shop"}
    there = dict.fromkeys(("RUNCLAIM_API_URL", "RUNCLAIM_TOKEN", "RUNCLAIM_APP")) | settings
    enqueued = runner().invoke(cli.command, words, env=there)
    checked = runner().invoke(cli.command, ["db", "check"], env=there)
    with Served(bench.config) as served:
        over_http = {
            "RUNCLAIM_API_URL": f"http://127.0.0.1:{served.port}",
            "RUNCLAIM_TOKEN": token(bench.database, "runs:read", projects=("shop",)),
        }
        listed = runner().invoke(cli.command, ["runs", "list", "--remote", "--json"], env=there | over_http)
    bench.finish(flow, flow.find("a:pr-1"))
    ended = bench.execute("SELECT state FROM runclaim_runs").scalars().all()
    bench.close()

    assert (0, 0) == (enqueued.exit_code, checked.exit_code), enqueued.stderr + checked.stderr
    assert [enqueued.stdout.strip()] == [json.loads(line)["id"] for line in listed.stdout.splitlines()]
    assert ["succeeded"] == ended


def test_a_role_that_may_not_use_the_schema_is_told_what_to_grant(postgres_url: str, opened: Opener):
    """Breaks if PostgreSQL passes over the schema in silence, as it does over one that may not be used."""
    public = opened(postgres_url)
    migrations.upgrade(opened(in_schema(postgres_url)))
    role = f"shop_{uuid4().hex[:8]}"
    with public.begin() as conn:
        conn.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
    outsider = opened(in_schema(postgres_url, username=role))

    with pytest.raises(LedgerRefused, match="grant the role USAGE on the schema"):
        migrations.require_current(outsider)
    with pytest.raises(ConfigError, match=r"may not use the schema.*GRANT USAGE, CREATE ON SCHEMA"):
        migrations.upgrade(outsider)
    with public.begin() as conn:
        conn.exec_driver_sql(f"DROP ROLE {role}")


def test_behind_a_pooler_nothing_is_set_and_the_role_has_to_lead_there(postgres_url: str, opened: Opener):
    """
    INVARIANT: a session that a pooler hands on is left as it was.

    Breaks if the search path is set there: the next client of that session would be led to our schema.
    """
    migrations.upgrade(opened(in_schema(postgres_url, "work")))
    pooled = make_url(in_schema(postgres_url, "work")).update_query_dict({"prepare_threshold": "none"})
    lost = opened(pooled.render_as_string(hide_password=False))
    found = opened(pooled.update_query_dict({"options": "-c search_path=work"}).render_as_string(hide_password=False))

    with pytest.raises(ConfigError, match="ALTER ROLE … SET search_path"):
        migrations.current(lost)
    assert migrations.HEAD == migrations.current(found)
    with found.read() as conn:
        assert "work" == conn.execute(text("SHOW search_path")).scalar_one()


CONCURRENT = '''
"""One more index."""
from runclaim.migrations.indexes import add_index

revision, down_revision, branch_labels, depends_on = "9000", "{head}", None, None
concurrently = True


def upgrade():
    add_index("ix_runclaim_extra", "runclaim_tokens", ["name"])
'''


def test_an_upgrade_of_tables_in_use_leaves_those_of_another_schema_alone(
    postgres_url: str, opened: Opener, tmp_path: Path
):
    """Breaks if an index is looked for, or dropped, along the search path: another ledger's has the same name."""
    public, ledger = opened(postgres_url), opened(in_schema(postgres_url))
    migrations.upgrade(public)
    migrations.upgrade(ledger)
    with public.begin() as conn:
        conn.exec_driver_sql("CREATE INDEX ix_runclaim_extra ON runclaim_tokens (name)")
        before = conn.exec_driver_sql("SELECT CAST('public.ix_runclaim_extra' AS regclass)::oid").scalar_one()
    (tmp_path / "9000_extra.py").write_text(CONCURRENT.format(head=migrations.HEAD))
    migrations.upgrade(ledger, Schema("9000", migrations.OLDEST, (VERSIONS, tmp_path)))
    with public.read() as conn:
        after = conn.exec_driver_sql("SELECT CAST('public.ix_runclaim_extra' AS regclass)::oid").scalar_one()
        own = conn.execute(text("SELECT to_regclass(:name)::oid"), {"name": f"{quoted(SCHEMA)}.ix_runclaim_extra"})

        assert before == after != own.scalar_one()
    assert [migrations.HEAD, "9000"] == [migrations.current(public), migrations.current(ledger)]


def test_the_printed_statements_lead_to_the_same_schema(postgres_url: str, opened: Opener):
    there = dict.fromkeys(("RUNCLAIM_API_URL", "RUNCLAIM_APP", "RUNCLAIM_DATABASE_URL"))
    told = runner().invoke(cli.command, ["db", "sql", "--url", in_schema(postgres_url)], env=there)
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as by_hand:
        by_hand.execute(told.stdout.encode())
    ledger = opened(in_schema(postgres_url))

    assert (migrations.HEAD, []) == (migrations.current(ledger), migrations.differences(ledger))
