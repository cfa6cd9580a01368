"""A session is of the ledger's own database, or is refused before anything is written."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from runclaim import migrations
from runclaim.errors import InputError, KeyConflict, SchemaBehind
from runclaim.flows.client.handle import Run
from tests import servers
from tests.harness.bench import Bench, PullRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from runclaim.flows.flow import Flow


@pytest.fixture
def engines() -> Iterator[list[Engine]]:
    """Engines of the application's, disposed of in the end."""
    made: list[Engine] = []
    yield made
    for engine in made:
        engine.dispose()


@pytest.fixture
def shop(postgres_url: str) -> Iterator[Bench]:
    """A ledger on PostgreSQL, alone in its database."""
    made = Bench(postgres_url)
    yield made
    made.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Bench]:
    """An application whose SQLite file nobody has made yet."""
    made = Bench(f"sqlite:///{tmp_path}/elsewhere.db")
    made.config = type(made.config)(database_url=f"sqlite:///{tmp_path}/fresh.db")
    yield made
    made.close()


def planned(bench: Bench) -> Flow[PullRequest]:
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    return flow


def engine_on(engines: list[Engine], url: str, **how: Any) -> Engine:
    engines.append(create_engine(url, **how))
    return engines[-1]


def refused(flow: Flow[PullRequest], db: Session) -> str:
    with pytest.raises(InputError) as error:
        flow.enqueue(repo="acme/app", number=7, session=db)
    assert "session" == error.value.field
    return str(error.value)


@pytest.mark.parametrize("with_tables", [True, False])
def test_a_session_on_another_database_of_the_same_server_is_refused(shop, engines, postgres_server, with_tables):
    """
    INVARIANT: a run is made where the workers look, or not at all.

    Breaks if the kinds of the two are compared and nothing else, or an id that a copy has too.
    """
    flow = planned(shop)
    with servers.database(postgres_server) as other:
        elsewhere = Bench(other)
        if not with_tables:
            elsewhere.execute("DROP SCHEMA public CASCADE")
            elsewhere.execute("CREATE SCHEMA public")
        with Session(engine_on(engines, other)) as db:
            db.execute(text("CREATE TABLE orders (name TEXT)"))
            said = refused(flow, db)
            db.execute(text("INSERT INTO orders VALUES ('a')"))
            db.commit()
        made = elsewhere.count("runclaim_runs") if with_tables else 0

        assert "leads to another one, or to another schema of it, and workers would never see the run" in said
        assert f"is on {other}, and the ledger is {shop.database}" in said
        assert [0, 0, 1] == [made, shop.count("runclaim_runs"), elsewhere.count("orders")]
        elsewhere.keeper._database.close()
        elsewhere.database.close()


def test_a_copy_of_the_ledger_with_all_its_rows_is_refused(shop, engines, postgres_server):
    flow = planned(shop)
    shop.database.close()
    shop.keeper._database.close()
    name = f"copy_{make_url(shop.config.database_url).database}"
    servers.administer(make_url(postgres_server), f"CREATE DATABASE {{}} TEMPLATE {shop.database.url.database}", name)
    copy = shop.database.url.set(database=name).render_as_string(hide_password=False)
    with Session(engine_on(engines, copy)) as db:
        said = refused(flow, db)
    engines[-1].dispose()
    servers.administer(make_url(postgres_server), "DROP DATABASE {}", name)

    assert "leads to another one" in said


def test_a_session_on_another_schema_is_refused_also_where_that_has_the_tables(shop, engines):
    flow = planned(shop)
    shop.execute("CREATE SCHEMA tenant")
    inside = f"{shop.config.database_url}?options=-c%20search_path%3Dtenant"
    tenant = Bench(inside)
    with Session(engine_on(engines, inside)) as db:
        said = refused(flow, db)

    assert "to another schema of it" in said
    assert [0, 0] == [shop.count("runclaim_runs"), tenant.count("tenant.runclaim_runs")]
    tenant.keeper._database.close()
    tenant.database.close()


def test_an_engine_that_changes_the_search_path_of_its_sessions_is_asked_again(shop, engines):
    """PostgreSQL tells of the path by itself from 18 on; the ledger's own engine is never asked."""
    flow = planned(shop)
    if int(shop.execute("SHOW server_version_num").scalar()) < 180000:
        pytest.skip("this server tells of no search path")
    shop.execute("CREATE SCHEMA tenant")
    engine = engine_on(engines, shop.config.database_url)
    with Session(engine) as db:
        first = flow.enqueue(repo="acme/app", number=1, session=db)
        db.commit()
        db.execute(text("SET search_path TO tenant"))
        said = refused(flow, db)
        db.rollback()

    assert first.created
    assert "to another schema of it" in said


def test_a_session_that_cannot_send_every_text_is_refused(shop, engines):
    flow = planned(shop)
    engine = engine_on(engines, shop.config.database_url, connect_args={"client_encoding": "latin1"})
    with Session(engine) as db:
        said = refused(flow, db)

    assert "speaks LATIN1, in which not every text can be sent: use UTF8" in said


@pytest.mark.parametrize("where", ["another file", "in memory", "the ledger attached"])
def test_a_session_on_another_file_is_refused(laptop: Bench, engines, tmp_path: Path, where):
    flow = planned(laptop)
    other = Bench(f"sqlite:///{tmp_path}/other.db")
    url = "sqlite://" if where == "in memory" else other.config.database_url
    engine = engine_on(engines, url, **({"poolclass": StaticPool} if where == "in memory" else {}))
    if where == "the ledger attached":
        event.listen(engine, "connect", lambda raw, _: raw.execute(f"ATTACH '{tmp_path}/ledger.db' AS ledger"))
    with Session(engine) as db:
        said = refused(flow, db)

    assert "leads to another one" in said
    assert [0, 0] == [laptop.count("runclaim_runs"), other.count("runclaim_runs")]
    other.keeper._database.close()
    other.database.close()


def test_a_file_is_the_ledgers_under_any_of_its_names(laptop: Bench, engines, tmp_path: Path):
    flow = planned(laptop)
    (tmp_path / "link.db").symlink_to(tmp_path / "ledger.db")
    with Session(engine_on(engines, f"sqlite:///{tmp_path}/link.db")) as db:
        run = flow.enqueue(repo="acme/app", number=7, session=db)
        db.commit()

    assert [run.id] == [due.run_id for due in laptop.rung]


def test_an_engine_is_asked_once_and_each_later_enqueue_costs_its_own_statements_alone(bench: Bench, engines):
    """
    INVARIANT: what is known of an engine costs nothing, also to engines with options of their own.

    Breaks if the answer is kept by the engine's object, of which `execution_options` makes another.
    """
    flow = planned(bench)
    engine = engine_on(engines, bench.config.database_url)
    sent: list[str] = []
    for each in (engine, bench.ledger.database.engine):
        event.listen(each, "before_cursor_execute", lambda _c, _cur, statement, *_: sent.append(statement))
    counts: list[int] = []
    later: list[str] = []
    for number in range(4):
        tenant = engine.execution_options(logging_token=str(number))
        with Session(tenant) as db:
            flow.enqueue(repo="acme/app", number=number, session=db)
            db.commit()
        counts.append(len(sent))
        later = [] if number == 0 else [*later, *sent]
        sent.clear()

    assert counts[0] > counts[1]
    assert [counts[1]] * 2 == counts[2:]
    assert not [statement for statement in later if "pg_postmaster" in statement or "database_list" in statement]


def test_a_map_of_schemas_does_not_reach_the_ledgers_statements_and_stays_the_sessions(bench: Bench, engines):
    """Breaks if the ledger's statements run under the map: they would look for a tenant's tables."""
    flow = planned(bench)
    engine = engine_on(engines, bench.config.database_url).execution_options(schema_translate_map={None: "tenant"})
    with Session(engine) as db:
        first = flow.enqueue(repo="acme/app", number=7, session=db)
        again = flow.enqueue(repo="acme/app", number=7, session=db)
        left = db.connection().get_execution_options()["schema_translate_map"]
        db.commit()

    assert [True, False, first.id] == [first.created, again.created, again.id]
    assert {None: "tenant"} == left


@pytest.fixture
def apart(postgres_url: str) -> Iterator[Bench]:
    """A ledger in a schema of its own, which the application's search path does not name."""
    made = Bench(f"{postgres_url}?schema=flows")
    yield made
    made.close()


@pytest.mark.parametrize("others", ["none", "a ledger of their own"])
def test_a_schema_that_was_chosen_is_reached_from_any_session_and_left_again(
    apart: Bench, engines, postgres_url, others
):
    """
    INVARIANT: the ledger's statements reach the ledger's tables, and the application's its own.

    Breaks if the session's search path decides: it may lead to the tables of another ledger.
    """
    if others != "none":
        other = Bench(postgres_url)
        other.close()
    flow = planned(apart)
    apart.execute("CREATE TABLE public.orders (name TEXT)")
    with Session(engine_on(engines, postgres_url)) as db:
        db.execute(text("SET LOCAL search_path TO public, pg_temp"))
        db.execute(text("INSERT INTO orders VALUES ('a')"))
        run = flow.enqueue(repo="acme/app", number=7, session=db)
        left = db.execute(text("SHOW search_path")).scalar_one()
        with pytest.raises(KeyConflict):
            flow.enqueue(repo="acme/app", number=7, head="another", session=db)
        also_left = db.execute(text("SHOW search_path")).scalar_one()
        db.commit()
        after = db.execute(text("SHOW search_path")).scalar_one()

    assert ["public, pg_temp"] * 2 == [left, also_left]
    assert '"$user", public' == after
    assert [run.id] == apart.execute("SELECT CAST(id AS TEXT) FROM flows.runclaim_runs").scalars().all()
    assert 1 == apart.count("public.orders")


def test_an_error_of_the_database_is_told_and_not_what_follows_from_it(apart: Bench, engines, postgres_url):
    """Breaks if the search path is put back in a transaction that is aborted: that fails in turn."""
    flow = planned(apart)
    with Session(engine_on(engines, postgres_url)) as db:
        flow.enqueue(repo="acme/app", number=1, session=db)
        db.commit()
        apart.execute("ALTER TABLE flows.runclaim_run_keys ADD CONSTRAINT shut CHECK (false) NOT VALID")
        with pytest.raises(IntegrityError, match="shut"):
            flow.enqueue(repo="acme/app", number=2, session=db)
        db.rollback()
        path = db.execute(text("SHOW search_path")).scalar_one()

    assert '"$user", public' == path


def test_a_session_on_another_database_is_refused_where_a_schema_was_chosen_too(
    apart: Bench, engines, postgres_server, tmp_path
):
    flow = planned(apart)
    with servers.database(postgres_server) as elsewhere:
        copy = Bench(f"{elsewhere}?schema=flows")
        with Session(engine_on(engines, elsewhere)) as db:
            on_postgresql = refused(flow, db)
        with Session(engine_on(engines, f"sqlite:///{tmp_path}/shop.db")) as db:
            on_sqlite = refused(flow, db)
        copy.close()

    assert "leads to another one" in on_postgresql
    assert "leads to sqlite" in on_sqlite


@pytest.mark.parametrize("transactions", ["the driver's own", "SQLAlchemy's advice"])
@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_the_first_use_of_a_new_file_may_be_inside_a_transaction_that_holds_it(
    fresh: Bench, engines, tmp_path: Path, ending, transactions
):
    """INVARIANT: SQLite never locks itself out. Breaks if a second connection makes the tables, or looks for them."""
    flow = planned(fresh)
    engine = engine_on(engines, fresh.config.database_url)
    if transactions == "SQLAlchemy's advice":
        event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
        event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN"))
    with Session(engine) as db:
        db.execute(text("CREATE TABLE orders (name TEXT)"))
        db.commit()
        began = time.monotonic()
        db.execute(text("INSERT INTO orders VALUES ('a')"))
        flow.enqueue(repo="acme/app", number=7, session=db)
        getattr(db, ending)()
        took = time.monotonic() - began
        db.execute(text("INSERT INTO orders VALUES ('b')"))
        last = flow.enqueue(repo="acme/app", number=8, session=db)
        db.commit()

    assert fresh.ledger.config.ledger_patience.total_seconds() > took
    assert (["acme/app:pr-7"] if ending == "commit" else []) + [last.view.key] == [due.key for due in fresh.rung]
    assert migrations.HEAD == migrations.current(fresh.ledger.database)


def test_tables_of_another_release_are_refused_inside_a_transaction_too(laptop: Bench, engines):
    flow = planned(laptop)
    laptop.execute("UPDATE runclaim_schema_version SET version_num = '0001'")
    laptop.execute("CREATE TABLE orders (name TEXT)")
    with Session(engine_on(engines, laptop.config.database_url)) as db:
        db.execute(text("INSERT INTO orders VALUES ('a')"))
        with pytest.raises(SchemaBehind):
            flow.enqueue(repo="acme/app", number=7, session=db)
    laptop.execute("UPDATE runclaim_schema_version SET version_num = :head", head=migrations.HEAD)


def test_an_async_session_is_told_apart_in_the_same_way(laptop: Bench, tmp_path: Path):
    flow = planned(laptop)
    sqlite3.connect(tmp_path / "other.db").close()

    async def enqueue(file: str, number: int) -> bool:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/{file}")
        try:
            async with AsyncSession(engine) as db:
                run = await flow.aenqueue(repo="acme/app", number=number, session=db)
                await db.commit()
                return run.created
        finally:
            await engine.dispose()

    with pytest.raises(InputError, match="leads to another one"):
        asyncio.run(enqueue("other.db", 1))
    assert asyncio.run(enqueue("ledger.db", 2))
    assert 1 == laptop.count("runclaim_runs")


def test_the_first_use_of_a_new_file_may_be_inside_an_async_transaction_that_holds_it(fresh: Bench):
    flow = planned(fresh)

    async def enqueue() -> str:
        engine = create_async_engine(fresh.config.database_url.replace("sqlite:", "sqlite+aiosqlite:"))
        async with AsyncSession(engine) as db:
            await db.execute(text("CREATE TABLE orders (name TEXT)"))
            await db.execute(text("INSERT INTO orders VALUES ('a')"))
            run = await flow.aenqueue(repo="acme/app", number=7, session=db)
            await db.commit()
        await engine.dispose()
        return run.id

    run_id = asyncio.run(enqueue())

    assert run_id == Run(fresh.ledger, run_id).view.id
