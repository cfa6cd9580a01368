"""The ledger's schema: made by migrations, equal to the models, and refused while it is behind."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tomllib
from datetime import timedelta
from importlib import resources
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, make_url, text
from sqlalchemy.exc import DBAPIError

from runclaim import migrations
from runclaim.database import Database
from runclaim.errors import ConfigError, SchemaBehind
from runclaim.migrations import scripts
from runclaim.migrations.revisions import OURS
from runclaim.models import metadata
from tests import servers
from tests.servers.postgres import administer

HEAD = migrations.HEAD
ROOT = Path(__file__).resolve().parents[2]
UPGRADE = """
import sys
from datetime import timedelta
from runclaim import migrations
from runclaim.database import Database

database = Database(sys.argv[1], patience=timedelta(seconds=30))
sys.stdin.readline()
print(getattr(migrations, sys.argv[2])(database))
"""


def opened(url):
    """A database whose file is there, as an application's own tables would have it."""
    found = Database(url, patience=timedelta(seconds=10))
    if found.file is not None:
        found.file.touch()
    return found


@pytest.fixture
def database(database_url):
    """Empty, on each of the two."""
    found = opened(database_url)
    yield found
    found.close()


@pytest.fixture
def postgres(postgres_url):
    found = opened(postgres_url)
    yield found
    found.close()


@pytest.fixture
def twin(request, database, tmp_path):
    """Another empty database of the same kind."""
    if database.url.get_backend_name() == "sqlite":
        found = opened(f"sqlite:///{tmp_path}/twin.db")
        yield found
        found.close()
        return
    with servers.database(request.getfixturevalue("postgres_server")) as url:
        found = opened(url)
        yield found
        found.close()


def test_an_upgrade_makes_the_tables_of_this_release(database):
    assert migrations.current(database) is None
    assert (None, migrations.HEAD) == migrations.upgrade(database)
    assert migrations.HEAD == migrations.current(database)
    assert [] == migrations.differences(database)


def test_a_second_upgrade_changes_nothing(database):
    migrations.upgrade(database)

    assert (migrations.HEAD, migrations.HEAD) == migrations.upgrade(database)
    assert [] == migrations.differences(database)


def test_a_missing_column_is_a_difference(database):
    migrations.upgrade(database)
    with database.begin() as conn:
        conn.exec_driver_sql("ALTER TABLE runclaim_runs DROP COLUMN trace_context")

    assert "trace_context" in str(migrations.differences(database))


def test_migrations_and_models_make_the_same_database_to_the_last_constraint(database, twin):
    """
    INVARIANT: what the models say is what the migrations make.

    Breaks if a constraint, a partial index, a cascade or a storage setting is changed on one side only; Alembic's
    own comparison does not look at these.
    """
    migrations.upgrade(database)
    with database.read() as conn:
        if conn.dialect.name == "postgresql":
            clock = conn.exec_driver_sql("SELECT pg_get_functiondef('runclaim_now'::regproc)").scalar_one()
        migrated = catalog(conn)
    with twin.begin() as conn:
        if conn.dialect.name == "postgresql":
            conn.exec_driver_sql(clock)
        metadata.create_all(conn)
        modelled = catalog(conn)

    assert migrated == modelled


def catalog(conn):
    found = catalog_of_sqlite(conn) if conn.dialect.name == "sqlite" else catalog_of_postgresql(conn)
    return {line for line in found if migrations.VERSION_TABLE not in line}


CATALOG = (
    """SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity, identity_generation
    FROM information_schema.columns WHERE table_schema = 'public'""",
    """SELECT conrelid::regclass, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
    """SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'""",
    """SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'""",
)


def catalog_of_postgresql(conn):
    return [" ".join(map(str, row)) for query in CATALOG for row in conn.exec_driver_sql(query)]


def catalog_of_sqlite(conn):
    for name, sql in conn.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all():
        flat = re.sub(r"\s+", " ", sql)
        if flat.startswith("CREATE TABLE"):
            # The order in which a table's columns and constraints are written means nothing.
            inside = flat[flat.index("(") + 1 : flat.rindex(")")]
            yield from (f"{name}: {part}" for part in parts(inside))
        else:
            yield flat


def parts(listed):
    """What stands between the commas that are in no brackets."""
    depth, part = 0, ""
    for sign in f"{listed},":
        depth += (sign == "(") - (sign == ")")
        if sign == "," and not depth:
            yield part.strip()
            part = ""
        else:
            part += sign


def test_the_ledgers_clock_goes_on_inside_a_transaction_and_inside_a_statement(postgres):
    """
    INVARIANT: who waited for a row gets a whole lease.

    Breaks if the clock is `now()` or `statement_timestamp()`, or may be read once and kept.
    """
    migrations.upgrade(postgres)
    with postgres.read() as conn:
        read = "SELECT runclaim_now() FROM (SELECT pg_sleep(0.001 * n) FROM generate_series(0, 1) AS n) AS waited"
        times = [moment for _ in range(2) for moment in conn.exec_driver_sql(read).scalars()]
        volatility = conn.exec_driver_sql("SELECT provolatile FROM pg_proc WHERE proname = 'runclaim_now'").scalar()

    assert sorted(set(times)) == times
    assert "v" == volatility


def test_this_release_needs_the_newest_script():
    script = ScriptDirectory.from_config(scripts._config(OURS))

    assert [migrations.HEAD] == script.get_heads()
    assert 1 == len(script.get_bases())


@pytest.mark.parametrize("call", ["upgrade", "require_current"])
def test_processes_that_upgrade_at_once_all_succeed(database, call):
    """
    INVARIANT: one upgrade at a time, and the others find it done.

    Breaks if the lock is taken after the look, or not at all: the tables would be made twice.
    """
    if call == "require_current" and database.url.get_backend_name() == "postgresql":
        migrations.upgrade(database)
    url = database.url.render_as_string(hide_password=False)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, url, call],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    told = [process.communicate("go\n", timeout=60) for process in processes]

    assert [0, 0, 0] == [process.returncode for process in processes], told
    assert migrations.HEAD == migrations.current(database)
    if call == "upgrade":
        assert [f"('{HEAD}', '{HEAD}')"] * 2 + [f"(None, '{HEAD}')"] == sorted(answer.strip() for answer, _ in told)


def test_an_upgrade_that_waited_for_another_sees_what_it_made_at_any_isolation_level(postgres_url):
    from tests.ledger.concurrency import together

    with_default = opened(f"{postgres_url}?options=-c%20default_transaction_isolation%3Dserializable")
    found = together(4, lambda _: migrations.upgrade(with_default))
    with_default.close()

    assert [HEAD, HEAD, HEAD, "None"] == sorted(str(before) for before, _ in found)


def test_an_empty_file_is_made_on_first_use(sqlite_url):
    database = opened(sqlite_url)
    migrations.require_current(database)

    assert [] == migrations.differences(database)
    database.close()


def test_a_server_without_tables_is_refused_with_the_command_that_makes_them(postgres):
    with pytest.raises(SchemaBehind, match="has no runclaim tables") as refused:
        migrations.require_current(postgres)
    assert str(postgres) in str(refused.value)
    assert str(refused.value).endswith("runclaim db upgrade")
    assert (None, migrations.HEAD) == (refused.value.found, refused.value.wanted)
    assert migrations.current(postgres) is None


def test_tables_of_another_release_are_refused_with_both_revisions(database):
    migrations.upgrade(database)
    with database.begin() as conn:
        conn.exec_driver_sql(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0000'")

    with pytest.raises(SchemaBehind, match=f"is at revision 0000, but this release needs {migrations.OLDEST}"):
        migrations.require_current(database)


def test_a_refusal_shows_no_password(postgres_url):
    secret = opened(postgres_url.replace("postgres@", "postgres:s3cret@"))

    with pytest.raises(SchemaBehind) as refused:
        migrations.require_current(secret)
    secret.close()
    assert "s3cret" not in str(refused.value)


def test_an_applications_own_tables_are_neither_touched_nor_reported(database):
    with database.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE invoices (id integer PRIMARY KEY)")
        conn.exec_driver_sql("CREATE INDEX ix_invoices ON invoices (id)")
        conn.exec_driver_sql("CREATE TABLE alembic_version (version_num text)")
        conn.exec_driver_sql("INSERT INTO invoices VALUES (1)")
        conn.exec_driver_sql("INSERT INTO alembic_version VALUES ('theirs')")
    migrations.upgrade(database)

    assert [] == migrations.differences(database)
    with database.read() as conn:
        assert [1] == conn.exec_driver_sql("SELECT id FROM invoices").scalars().all()
        assert ["theirs"] == conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
        theirs = set(inspect(conn).get_table_names()) - set(metadata.tables)
    assert {"invoices", "alembic_version", migrations.VERSION_TABLE} == theirs


def test_an_upgrade_that_fails_leaves_nothing(database):
    with database.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE runclaim_phase_results (id integer)")

    with pytest.raises(DBAPIError):
        migrations.upgrade(database)
    with database.read() as conn:
        assert ["runclaim_phase_results"] == inspect(conn).get_table_names()


def test_the_ledger_can_live_in_a_schema_of_its_own(postgres, postgres_url):
    with postgres.begin() as conn:
        conn.exec_driver_sql("CREATE SCHEMA work")
    apart = opened(f"{postgres_url}?options=-c%20search_path%3Dwork")
    migrations.upgrade(apart)

    assert [] == migrations.differences(apart)
    assert migrations.current(postgres) is None
    with apart.read() as conn:
        assert conn.execute(text("SELECT runclaim_now()")).scalar_one() is not None
    apart.close()


def test_events_keep_their_numbers_in_an_upgrade_and_new_ones_come_after_every_listener(sqlite_url):
    database = opened(sqlite_url)
    with database.begin() as conn:
        scripts.run(conn, OURS, "0006")
    with database.begin() as conn:
        needed = [column for column in inspect(conn).get_columns("runclaim_runs") if not column["nullable"]]
        values = dict.fromkeys((column["name"] for column in needed), 0) | {"id": "a", "state": "queued"}
        names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        conn.execute(text(f"INSERT INTO runclaim_runs ({names}) VALUES ({marks})"), values)
        conn.exec_driver_sql("INSERT INTO runclaim_events (id, run_id, type, fence, at) VALUES (7, 'a', 'old', 0, 0)")
        conn.exec_driver_sql("INSERT INTO runclaim_listeners VALUES ('audit', 41, NULL, NULL, 0, 0)")
    migrations.upgrade(database)
    with database.begin() as conn:
        conn.exec_driver_sql("INSERT INTO runclaim_events (run_id, type, fence, at) VALUES ('a', 'new', 1, 0)")
        numbers = conn.exec_driver_sql("SELECT id FROM runclaim_events ORDER BY id").scalars().all()
    database.close()

    assert [7, 42] == numbers


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_that_cannot_hold_every_text_is_refused_before_anything_is_made(postgres_server, encoding):
    name = f"in_{encoding.lower()}_{uuid4().hex[:8]}"
    create = f"CREATE DATABASE {{}} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    administer(make_url(postgres_server), create, name)
    database = opened(make_url(postgres_server).set(database=name).render_as_string(hide_password=False))

    with pytest.raises(ConfigError, match=f"has the encoding {encoding}.*the ledger needs UTF8"):
        migrations.upgrade(database)
    assert migrations.current(database) is None
    database.close()
    administer(make_url(postgres_server), "DROP DATABASE {}", name)


def test_a_search_path_that_leads_nowhere_is_refused(postgres_url):
    lost = opened(f"{postgres_url}?options=-c%20search_path%3Dnowhere")

    with pytest.raises(ConfigError, match="the search_path names no schema that exists"):
        migrations.upgrade(lost)
    lost.close()


def test_an_upgrade_leaves_the_applications_logging_as_it_was(database):
    theirs = logging.getLogger("alembic")
    before = theirs.level
    theirs.setLevel(logging.DEBUG)
    migrations.upgrade(database)
    after = theirs.level
    theirs.setLevel(before)

    assert logging.DEBUG == after


def test_rows_that_row_level_security_hides_are_not_taken_for_missing_tables(postgres, postgres_url):
    migrations.upgrade(postgres)
    role = f"shop_{uuid4().hex[:8]}"
    with postgres.begin() as conn:
        conn.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        conn.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        conn.exec_driver_sql(f"ALTER TABLE {migrations.VERSION_TABLE} ENABLE ROW LEVEL SECURITY")
    seen = opened(make_url(postgres_url).set(username=role).render_as_string(hide_password=False))

    with pytest.raises(ConfigError, match=f"hides the rows of {migrations.VERSION_TABLE} from the role {role}"):
        migrations.require_current(seen)
    seen.close()
    with postgres.begin() as conn:
        conn.exec_driver_sql(f"DROP OWNED BY {role}")
        conn.exec_driver_sql(f"DROP ROLE {role}")


def test_a_table_of_the_revision_without_its_row_is_told_as_that(database):
    migrations.upgrade(database)
    with database.begin() as conn:
        conn.exec_driver_sql(f"DELETE FROM {migrations.VERSION_TABLE}")

    with pytest.raises(ConfigError, match="is empty, so the release of these tables is unknown"):
        migrations.require_current(database)


def test_the_scripts_are_in_the_wheel():
    """The wheel holds the package's folder as it is; nothing in the build leaves the scripts out."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    scripts = [entry.name for entry in resources.files("runclaim.migrations").joinpath("versions").iterdir()]

    assert {"packages": ["runclaim"]} == build["targets"]["wheel"]
    assert "exclude" not in build
    assert any(name.startswith(migrations.HEAD) for name in scripts)
