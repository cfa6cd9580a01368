"""
Every SQLSTATE of PostgreSQL's appendix A, through each door of the ledger.

The server itself raises them, in the very transaction of the verb. Expected is what each *class* of states means: one
that time may mend is "away", one that a person has to mend is "refused" at once, any other is raised as it is.
"""

from __future__ import annotations

import http.client
import json
import logging
import time
from contextlib import closing
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import errors
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from runclaim import RunState
from runclaim.cli.exits import Exit, told
from runclaim.errors import LedgerRefused, LedgerUnavailable
from runclaim.flows.client.handle import Run
from tests.api.served import Served, token
from tests.harness.bench import Bench
from tests.harness.ledgers import put_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim.database import Database

pytestmark = pytest.mark.postgres

STATES = sorted({error.sqlstate for error in errors._sqlcodes.values() if error.sqlstate})
AWAY_CLASSES = {"08", "40", "53", "57", "58", "72"}
AWAY = {"0A000", "25006", "25P03", "25P04", "26000", "42P05", "55000", "55006", "55P03"}
REFUSED_CLASSES = {"0L", "0P", "28", "3D", "3F", "F0"}
REFUSED = {"42501", "XX001", "XX002"}
#: What the database says of a value, at this time or any other.
OF_DATA_CLASSES = {"21", "22", "23", "44"}


def meaning(state: str) -> str:
    if state in AWAY or state[:2] in AWAY_CLASSES:
        return "away"
    return "refused" if state in REFUSED or state[:2] in REFUSED_CLASSES else "raised"


def raised(call: Callable[[], Any]) -> str:
    """The meaning of what a call raises."""
    try:
        call()
    except LedgerUnavailable:
        return "away"
    except LedgerRefused as refused:
        return "misleading" if "try again" in str(refused) else "refused"
    except DBAPIError:
        return "raised"
    return "nothing"


class Saboteur:
    """Has the server raise a state instead of executing what our sessions send; `times` none of them."""

    def __init__(self, database: Database) -> None:
        self.state, self.times = "", 0
        event.listen(database.engine, "do_execute", self._raise)

    def arm(self, state: str, times: int = 1_000_000) -> None:
        self.state, self.times = state, times

    def disarm(self) -> None:
        self.times = 0

    def _raise(self, cursor: Any, _statement: str, _parameters: Any, _context: Any) -> None:
        if self.times:
            self.times -= 1
            cursor.execute(f"DO $$ BEGIN RAISE SQLSTATE '{self.state}'; END $$")


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> Iterator[None]:
    """No pause before a repetition, and no traceback is written: hundreds of either take longer than all the rest."""
    monkeypatch.setattr(
        "runclaim.sql.patience.time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _seconds: None)
    )
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def impatient(bench_postgres_url, tmp_path) -> Iterator[Bench]:
    """A bench that tries once."""
    made = Bench(bench_postgres_url, ledger_patience=timedelta(milliseconds=1), fail_open_folder=str(tmp_path / "open"))
    yield made
    put_away(made)


def met(saboteur: Saboteur, call: Callable[[str], Any]) -> dict[str, str]:
    """State → the meaning of what the call raises while the server answers with it."""
    found = {}
    for state in STATES:
        saboteur.arm(state)
        found[state] = raised(lambda state=state: call(state))
        saboteur.disarm()
    return found


EXPECTED = {state: meaning(state) for state in STATES}


def test_the_states_are_those_of_the_appendix():
    assert len(STATES) > 200
    assert {"away", "refused", "raised"} == set(EXPECTED.values())


def test_an_enqueue(impatient: Bench):
    flow = impatient.flow()
    flow.phase(name="plan")(lambda ctx: None)
    flow.enqueue(repo="first", number=1)
    saboteur = Saboteur(impatient.ledger.database)

    assert EXPECTED == met(saboteur, lambda state: flow.enqueue(repo=state, number=1))
    assert 1 == impatient.count("runclaim_runs")


def test_a_claim(impatient: Bench):
    flow = impatient.flow()
    bodies = []
    flow.phase(name="plan")(bodies.append)
    run = flow.enqueue(repo="acme/app", number=1)
    (due,) = impatient.rung
    saboteur = Saboteur(impatient.database)

    assert EXPECTED == met(saboteur, lambda _: impatient.deliver(flow, due))
    assert ([], RunState.QUEUED) == (bodies, run.state)


def test_a_read(impatient: Bench):
    flow = impatient.flow()
    flow.phase(name="plan")(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=1)

    assert EXPECTED == met(Saboteur(impatient.ledger.database), lambda _: run.state)


def test_a_completion(impatient: Bench):
    """
    INVARIANT: no state of the recording ends an attempt, and a body that has ended well keeps its result.

    Breaks if any of them is settled as the body's: with one attempt its run would be failed.
    """
    flow, saboteur = impatient.flow(), Saboteur(impatient.database)

    @flow.phase(max_attempts=1)
    def plan(ctx):
        saboteur.arm(ctx.input.repo, times=1)
        return "done"

    flow.enqueue_many([{"repo": state, "number": 1} for state in STATES])
    found = {state: raised(lambda: impatient.deliver(flow)) for state in STATES}
    saboteur.disarm()
    ended = dict(impatient.execute("SELECT input ->> 'repo', state FROM runclaim_runs").all())

    of_data = {state for state in STATES if state[:2] in OF_DATA_CLASSES}
    assert {state for state, what in found.items() if what != "nothing"} == of_data
    assert ended == {state: RunState.RUNNING if state in of_data else RunState.SUCCEEDED for state in STATES}


def test_a_heartbeat(impatient: Bench):
    """
    INVARIANT: what a beat meets is unknown, and never a lost claim.

    Breaks if an error of the database counts as an answer: the keeper would stop a body whose claim is current.
    """
    flow, beats = impatient.flow(), []
    saboteur = Saboteur(impatient.keeper._database)

    @flow.phase
    def plan(ctx):
        (kept,) = impatient.keeper._watched.values()
        for state in STATES:
            saboteur.arm(state, times=1)
            beats.append(raised(lambda: impatient.keeper._beat([kept])))
            saboteur.disarm()
            assert impatient.keeper.trouble(kept.claim) is None

    run = flow.enqueue(repo="acme/app", number=1)
    impatient.deliver(flow)

    assert run.state is RunState.SUCCEEDED
    # What passes is repeated at once.
    assert beats == ["nothing" if EXPECTED[state] == "away" else EXPECTED[state] for state in STATES]


def test_a_request(impatient: Bench):
    served = Served(impatient.config)
    codes = {"away": (503, "ledger-unavailable"), "refused": (503, "ledger-refused"), "raised": (500, "internal")}
    admin = token(impatient.database, "admin")
    # One connection for all: each of its own costs more than its request.
    with served, closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)) as connection:
        assert 200 == ask(connection, admin)[0]
        saboteur = Saboteur(served.server.database)
        answers = {}
        for state in STATES:
            saboteur.arm(state)
            answers[state] = ask(connection, admin)
            saboteur.disarm()

    assert answers == {state: (*codes[what], "2" if what == "away" else None) for state, what in EXPECTED.items()}


def ask(connection: http.client.HTTPConnection, token: str) -> tuple[int, str | None, str | None]:
    """A request's status, the code of the problem, and `Retry-After`."""
    connection.request("GET", "/v1/runs", headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read()).get("code"), answer.headers["retry-after"]


def test_a_command(impatient: Bench, capsys):
    saboteur = Saboteur(impatient.ledger.database)
    codes = {"away": Exit.UNREACHABLE, "refused": Exit.UNREACHABLE, "raised": Exit.FAILED}
    found = {}
    for state in STATES:
        saboteur.arm(state)
        with pytest.raises(SystemExit) as ended, told():
            _ = Run(impatient.ledger, "0195c0de-0000-7000-8000-000000000007").view
        saboteur.disarm()
        found[state] = ended.value.code
    lines = capsys.readouterr().err.splitlines()

    assert found == {state: codes[meaning(state)] for state in STATES}
    assert [] == [line for line in lines if not line.startswith("runclaim: ")]


def test_a_flow_that_fails_open(impatient: Bench):
    """
    INVARIANT: only a ledger that is away opens a flow; an answer, whatever it is, is never overridden.

    Breaks if a refused role opens it, or one of the states that pass does not.
    """
    flow = impatient.flow(fail_open=True)
    bodies: list[str] = []
    flow.phase(name="plan", idempotent=True)(lambda ctx: bodies.append(ctx.input.repo))
    saboteurs = [Saboteur(impatient.ledger.database), Saboteur(impatient.database)]
    opened = []
    for state in STATES:
        for saboteur in saboteurs:
            saboteur.arm(state)
        impatient.rung.clear()
        if raised(lambda state=state: flow.enqueue(repo=state, number=1)) == "nothing":
            opened.append(state)
            assert "nothing" == raised(lambda: impatient.deliver(flow))
    for saboteur in saboteurs:
        saboteur.disarm()

    assert opened == [state for state in STATES if EXPECTED[state] == "away"]
    assert bodies == opened
