"""Roles with what `db grants` prints: each part does its work, and is refused what it has no need for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from runclaim import KeyConflict, cli
from runclaim.errors import LedgerRefused
from runclaim.flows.declare.registry import register_flows
from runclaim.flows.upkeep.dispatch import dispatch_due
from runclaim.flows.upkeep.forget import forget_expired
from runclaim.flows.upkeep.purge import end_unused_subjects, purge_expired
from runclaim.flows.upkeep.rescue import rescue_lapsed
from runclaim.ledger.doors import tokens
from runclaim.ledger.doors.tokens import Scope
from runclaim.migrations.grants import Part, may, statements, tables
from tests.api.served import Served, token
from tests.harness.bench import Bench
from tests.harness.command_line import runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runclaim.flows.flow import Flow

SCHEMA = "flows"


@pytest.fixture(params=[None, SCHEMA], ids=["public", "a schema of its own"])
def owner(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[Bench]:
    """Who owns the tables."""
    made = Bench(f"{postgres_url}?schema={request.param}" if request.param else postgres_url)
    yield made
    made.close()


@pytest.fixture
def roles(owner: Bench) -> Iterator[Mapping[Part, str]]:
    """A role for each part, with what is printed for it."""
    names = {part: f"{part}_{uuid4().hex[:8]}" for part in Part}
    with owner.database.begin() as conn:
        for name in names.values():
            conn.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
        for line in "\n".join(statements(names, owner.database.schema)).replace("%", "%%").split(";\n"):
            conn.exec_driver_sql(line)
    yield names
    with owner.database.begin() as conn:
        for name in names.values():
            conn.exec_driver_sql(f"DROP OWNED BY {name}")
            conn.exec_driver_sql(f"DROP ROLE {name}")


@pytest.fixture
def acting(owner: Bench, roles: Mapping[Part, str]) -> Iterator[Callable[[Part], Bench]]:
    """A process of a part, connected as its role."""
    made: list[Bench] = []

    def connect(part: Part) -> Bench:
        made.append(Bench(url_of(owner, roles[part])))
        return made[-1]

    yield connect
    for bench in made:
        bench.close()


def url_of(owner: Bench, role: str) -> str:
    url = make_url(owner.config.database_url).set(username=role)
    return url.render_as_string(hide_password=False)


def declared(bench: Bench) -> Flow:
    flow = bench.flow(subject="{repo}")

    def plan(ctx):
        ctx.finding(path="a", severity="major", title="b")
        ctx.act("ask", lambda _key: "answer")
        ctx.plan_action("comment", {"body": "c"})
        return "planned"

    flow.phase(name="plan")(plan)
    flow.phase(name="deliver", on="approved")(lambda ctx: None)
    bench.action("comment")(lambda payload, key: "sent")
    return flow


def deliver_all(worker: Bench, work: Flow, application: Bench) -> None:
    """Have the worker work off what the application has rung for."""
    while worker.rung or application.rung:
        worker.deliver(work, (worker.rung or application.rung).pop(0))


def refused(bench: Bench, statement: str) -> bool:
    try:
        with bench.database.begin() as conn:
            conn.execute(text(statement))
    except ProgrammingError as error:
        return getattr(error.orig, "sqlstate", None) == "42501"
    return False


def test_application_and_worker_do_their_work_between_them(acting: Callable[[Part], Bench]):
    """What the tests of the flows do as the owner, in short: every kind of write of both."""
    application, worker = acting(Part.APPLICATION), acting(Part.WORKER)
    flow, work = declared(application), declared(worker)
    register_flows(worker.database, [work], worker.config)
    first = flow.enqueue(repo="a", number=1)
    second = flow.enqueue(repo="a", number=2)
    with pytest.raises(KeyConflict):
        flow.enqueue_many([{"repo": "b", "number": 1}, {"repo": "a", "number": 2, "head": "other"}])
    dispatch_due(worker.database, worker.rung, flows={"review": work}, spacing=worker.config.dispatch_after)
    deliver_all(worker, work, application)
    worker.send()
    second.signal("approved")
    deliver_all(worker, work, application)
    again = flow.using(rerun=True).enqueue(repo="a", number=2)
    again.cancel()
    rescue_lapsed(worker.database, flows={"review": work})
    worker.tell()
    purge_expired(worker.database, worker.config, known=[work], plain_names=[])
    end_unused_subjects(worker.database)
    forget_expired(worker.database)
    engine = create_engine(application.database.url.difference_update_query(["schema"]))
    with Session(engine) as db:
        joined = flow.enqueue(repo="c", number=1, session=db)
        db.commit()
    engine.dispose()

    assert ["superseded", "succeeded", "canceled", "queued"] == [
        str(run.state) for run in (first, second, again, joined)
    ]
    assert "planned" == second.results["plan"]


def test_the_api_does_its_work(acting: Callable[[Part], Bench], owner: Bench):
    """Every test of the API was run under such a role; this is one request of each kind."""
    worker = acting(Part.WORKER)
    worker.register(declared(worker))
    with Served(acting(Part.API).config) as served:
        client = served.client(token(owner.database, "admin", "worker"))
        wanted = {"flow": "review", "input": {"repo": "a", "number": 1, "base": "b", "head": "h"}}
        answers = [client.post("/v1/runs", wanted, idempotency_key='"one"') for _ in range(2)]
        claimed = client.post("/v1/runs:claim", {"flow": "review", "phases": ["plan"], "worker": "outside"})
        canceled = client.post(f"/v1/runs/{answers[0].json['id']}:cancel")
        listed = client.get("/v1/runs")

    assert [201, 201, 200, 202, 200] == [each.status for each in (*answers, claimed, canceled, listed)]
    assert answers[0].json["id"] == answers[1].json["id"] == listed.json["runs"][0]["id"]


def test_a_reader_reads_and_checks_and_enqueues_nothing(acting: Callable[[Part], Bench], owner: Bench):
    run = declared(owner).enqueue(repo="a", number=1)
    reader = acting(Part.READER)
    there = {"RUNCLAIM_DATABASE_URL": reader.config.database_url, "RUNCLAIM_API_URL": None, "RUNCLAIM_APP": None}
    said = [runner().invoke(cli.command, words.split(), env=there) for words in ("runs list --json", "db check")]
    with pytest.raises(LedgerRefused, match="as `runclaim db grants` prints it"):
        declared(reader).enqueue(repo="a", number=2)

    assert [0, 0] == [each.exit_code for each in said], [each.stderr for each in said]
    assert [run.id] == [json.loads(line)["id"] for line in said[0].stdout.splitlines()]


NOBODYS = (
    "CREATE TABLE more (id int)",
    "DROP TABLE runclaim_runs",
    "ALTER TABLE runclaim_runs ADD COLUMN more int",
    "TRUNCATE runclaim_runs",
    "UPDATE runclaim_schema_version SET version_num = '0001'",
    "INSERT INTO runclaim_tokens SELECT * FROM runclaim_tokens",
    "DELETE FROM runclaim_events",
)
SECRETS = ("SELECT secret_hash FROM runclaim_tokens", "SELECT key FROM runclaim_signing_keys")
HISTORY = ("UPDATE runclaim_phase_results SET result = NULL", "UPDATE runclaim_events SET data = NULL")
REFUSED = {
    Part.APPLICATION: (
        *SECRETS, *HISTORY, "SELECT 1 FROM runclaim_answers", "DELETE FROM runclaim_phase_results",
        "INSERT INTO runclaim_phase_results SELECT * FROM runclaim_phase_results",
        "UPDATE runclaim_flows SET name = 'x'",
    ),
    Part.WORKER: (*SECRETS, *HISTORY, "INSERT INTO runclaim_answers SELECT * FROM runclaim_answers"),
    Part.API: (
        "DELETE FROM runclaim_phase_results", "UPDATE runclaim_counters SET value = 0", "DELETE FROM runclaim_tokens",
    ),
    Part.READER: (
        *SECRETS, *HISTORY, "SELECT 1 FROM runclaim_answers", "UPDATE runclaim_runs SET fence = 1",
        "DELETE FROM runclaim_runs", "INSERT INTO runclaim_signals SELECT * FROM runclaim_signals",
    ),
}  # fmt: skip


@pytest.mark.parametrize("part", list(Part))
def test_a_role_is_refused_what_its_part_has_no_need_for(acting: Callable[[Part], Bench], part: Part):
    """
    INVARIANT: no role alters the schema or makes tokens, and none but the API reads what others authenticate with.

    Breaks if a part is given all of a table for one verb of it.
    """
    role = acting(part)

    assert [] == [statement for statement in (*NOBODYS, *REFUSED[part]) if not refused(role, statement)]


def test_only_the_owner_makes_tokens(acting: Callable[[Part], Bench]):
    """Breaks if the API's role could give itself a token with every scope."""
    api = acting(Part.API)

    with pytest.raises(ProgrammingError, match="permission denied"), api.database.begin() as conn:
        tokens.create(conn, name="mine", scopes=[Scope("runs:read")], projects=["*"], lasts=None)


def test_every_table_says_who_may_do_what_with_it():
    """Breaks when a migration brings a table: say in `migrations.grants` which part needs which of its verbs."""
    assert [] == [table for table in tables() if not any(may(part, table) for part in Part)]


def test_the_command_prints_what_is_named_or_all_of_it():
    there = {"RUNCLAIM_DATABASE_URL": "postgresql://host/shop?schema=flows", "RUNCLAIM_APP": None}
    one = runner().invoke(cli.command, ["db", "grants", "--reader", 'b"ob'], env=there)
    every = runner().invoke(cli.command, ["db", "grants", "--json"], env=there)

    assert 'GRANT USAGE ON SCHEMA "flows" TO "b""ob";' in one.stdout
    assert "INSERT" not in one.stdout
    assert {f"{part}": f"runclaim_{part}" for part in Part} == json.loads(every.stdout)["roles"]
