"""
Who may do what: every route of the OpenAPI document with every kind of token.

The table below is written by hand. A route that is in the document and not in the table fails, as does one that is in
the table and not in the document; so no route can come without somebody having said who may use it.
"""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.api.conftest import INPUT, Office
from tests.api.served import token

PUBLIC, READ, WRITE, ERASE, WORK = "public", "runs:read", "runs:write", "runs:erase", "worker"
#: Operation → (the scope that it needs, a body that is good).
TABLE = {
    "GET /livez": (PUBLIC, None),
    "GET /readyz": (PUBLIC, None),
    "POST /v1/webhooks/{trigger}": (PUBLIC, {}),
    "GET /metrics": (READ, None),
    "GET /v1/flows": (READ, None),
    "GET /v1/runs": (READ, None),
    "POST /v1/runs": (WRITE, {"flow": "review", "input": INPUT}),
    "GET /v1/runs/{run_id}": (READ, None),
    "GET /v1/runs/{run_id}/events": (READ, None),
    "POST /v1/runs/{run_id}:cancel": (WRITE, None),
    "POST /v1/runs/{run_id}:retry": (WRITE, None),
    "POST /v1/runs/{run_id}:resume": (WRITE, None),
    "POST /v1/runs/{run_id}:rerun": (WRITE, None),
    "POST /v1/runs:cancel": (WRITE, {"ids": ["{run_id}"]}),
    "POST /v1/runs:move-phase": (WRITE, {"flow": "review", "from": "deliver", "to": "plan"}),
    "POST /v1/runs:erase": (ERASE, {"flow": "review", "key": "nobody's"}),
    "GET /v1/actions": (READ, None),
    "GET /v1/actions/{action_id}": (READ, None),
    "POST /v1/actions/{action_id}:retry": (WRITE, None),
    "POST /v1/actions/{action_id}:resolve": (WRITE, {"upstream_id": None}),
    "POST /v1/runs:claim": (WORK, {"flow": "review", "phases": ["plan"], "worker": "w"}),
    "POST /v1/runs/{run_id}:heartbeat": (WORK, {"claim": "{claim}"}),
    "POST /v1/runs/{run_id}:succeed": (WORK, {"claim": "{claim}", "result": 1}),
    "POST /v1/runs/{run_id}:fail": (WORK, {"claim": "{claim}", "error": {}}),
}
SCOPES = ("runs:read", "runs:write", "runs:erase", "worker", "admin")
NO_TOKEN = {
    "none": None,
    "empty": "",
    "made up": f"rc_{'0' * 12}_{'0' * 64}",
    "injected": "' OR 1=1 --",
    "long": "x" * 4000,
}


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    """One for all: each question is about who asks, and the answers change little."""
    made = Office(f"sqlite:///{tmp_path_factory.mktemp('matrix')}/ledger.db", api_rate="100000/minute")
    made.served.server.quota._guesses = made.served.server.quota._limit
    with made.served:
        yield made
    made.close()


@pytest.fixture(scope="module")
def claimed(office):
    """A run of the project `default`, and its claim; and an action of another one."""
    action = office.planned(98, ConnectionError("cut"))
    made = office.client.post("/v1/runs", {"flow": "review", "input": INPUT | {"number": 99}}).json
    job = office.client.post("/v1/runs:claim", {"flow": "review", "phases": ["plan"], "worker": "w"}).json
    assert made["id"] == job["id"]
    return {"run_id": job["id"], "claim": job["claim"], "action_id": action["id"]}


def operations(document):
    return {f"{method.upper()} {path}" for path, found in document["paths"].items() for method in found}


def ask(office, operation, who, claimed, trigger="hook"):
    method, path = operation.split(" ")
    body = filled(TABLE[operation][1], claimed)
    accept = {"accept": "application/json"} if path.endswith("/events") else {}
    return office.served.client(who).ask(method, filled(path, claimed | {"trigger": trigger}), body, **accept)


def filled(told, values):
    if isinstance(told, str):
        for name, value in values.items():
            told = told.replace(f"{{{name}}}", value)
        return told
    if isinstance(told, list):
        return [filled(each, values) for each in told]
    return {name: filled(each, values) for name, each in told.items()} if isinstance(told, dict) else told


def test_every_route_of_the_document_is_in_the_table_and_the_other_way_round(office):
    assert set(TABLE) == operations(office.client.get("/openapi.json").json)


def test_the_document_says_the_same_of_each_route(office):
    document = office.client.get("/openapi.json").json
    said = {
        f"{method.upper()} {path}": [scope for each in operation["security"] for scope in each["bearer"]]
        for path, found in document["paths"].items()
        for method, operation in found.items()
    }

    assert {name: [] if scope == PUBLIC else [scope] for name, (scope, _) in TABLE.items()} == said


def test_every_route_of_the_app_is_in_the_document(office):
    """What is not in the document is not in the table: only the document itself is so."""
    for path in ("/docs", "/redoc", "/v1", "/", "/v1/tokens", "/v1/runs/", "/admin"):
        assert 404 == office.client.get(path).status, path
    assert 200 == office.served.client().get("/openapi.json").status


@pytest.mark.parametrize("given", NO_TOKEN)
@pytest.mark.parametrize("operation", TABLE)
def test_who_has_no_token_gets_nothing(office, claimed, operation, given):
    answer = ask(office, operation, NO_TOKEN[given], claimed)

    if TABLE[operation][0] == PUBLIC:
        assert answer.status in {200, 404}
        return
    assert (401, "unauthorized") == (answer.status, answer.code)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("state", ["expired", "revoked"])
@pytest.mark.parametrize("operation", [name for name, (scope, _) in TABLE.items() if scope != PUBLIC])
def test_a_token_that_is_over_is_none(office, claimed, operation, state):
    over = token(office.bench.database, "admin")
    column = {"expired": "expires_at", "revoked": "revoked_at"}[state]
    office.bench.execute(f"UPDATE runclaim_tokens SET {column} = created_at WHERE id = :id", id=over.split("_")[1])

    assert (401, "unauthorized") == ((answer := ask(office, operation, over, claimed)).status, answer.code)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("operation", TABLE)
def test_a_scope_opens_its_own_routes_and_no_other(office, claimed, operation, scope):
    answer = ask(office, operation, token(office.bench.database, scope), claimed)

    if TABLE[operation][0] in {PUBLIC, scope} or scope == "admin":
        assert answer.status not in {401, 403}, answer
    else:
        assert (403, "scope-missing") == (answer.status, answer.code)
        assert f'scope="{TABLE[operation][0]}"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("operation", [name for name, (scope, _) in TABLE.items() if scope == WRITE])
def test_who_may_only_write_is_told_ids_and_states_and_nothing_else(office, claimed, operation):
    """
    INVARIANT: `runs:write` reads nothing.

    Breaks if a change is answered with the run or the action that it changed, whoever asks.
    """
    writer = token(office.bench.database, "runs:write")
    answer = ask(office, operation, writer, claimed)
    shown = answer.json.get("runs", [answer.json]) if answer.status < 300 else []

    assert [] == [each for each in shown if set(each) != {"id", "state"}]
    assert INPUT["repo"] not in answer.body.decode()


@pytest.mark.parametrize("operation", [name for name in TABLE if "_id}" in name or name == "POST /v1/runs:cancel"])
def test_a_run_of_another_project_is_not_there(office, claimed, operation):
    """
    INVARIANT: another project's run or action looks like one that never was, also inside a body.

    Breaks if a handler takes an id without asking whose it is.
    """
    theirs = token(office.bench.database, "admin", projects=("theirs",))
    nobodys = claimed | dict.fromkeys(("run_id", "action_id"), "01a1ff25-3afd-7d27-b4d9-2a64eef8722e")
    named = "action_id" if "{action_id}" in operation else "run_id"
    refused, unknown = ask(office, operation, theirs, claimed), ask(office, operation, office.token, nobodys)

    assert (404, "not-found") == (refused.status, refused.code)
    assert unknown.json["detail"].replace(nobodys[named], "?") == refused.json["detail"].replace(claimed[named], "?")


def test_a_batch_with_one_run_of_another_project_changes_none(office):
    ours = office.enqueued(501)["id"]
    theirs = token(office.bench.database, "admin", projects=("theirs",))
    made = office.served.client(theirs).post("/v1/runs", {"flow": "review", "input": INPUT}).json
    refused = office.client.post("/v1/runs:cancel", {"ids": [ours, made["id"]]})

    assert (404, "not-found") == (refused.status, refused.code)
    assert "queued" == office.client.get(f"/v1/runs/{ours}").json["state"]
    assert "theirs" == made["project"]


@pytest.mark.parametrize("operation", ["GET /v1/runs", "GET /v1/actions", "POST /v1/runs", "POST /v1/runs:claim"])
def test_another_project_is_not_there(office, claimed, operation):
    method, path = operation.split(" ")
    body = TABLE[operation][1]
    answer = (
        office.client.get(f"{path}?project=theirs")
        if method == "GET"
        else office.client.post(path, body | {"project": "theirs"})
    )

    assert (404, "not-found") == (answer.status, answer.code)


def test_a_listing_shows_the_runs_of_its_project_only(office):
    office.enqueued(601)
    theirs = office.served.client(token(office.bench.database, "runs:read", projects=("empty",)))
    both = office.served.client(token(office.bench.database, "runs:read", projects=("empty", "default")))

    assert [] == theirs.get("/v1/runs").json["runs"]
    assert [] == both.get("/v1/runs?project=empty").json["runs"]
    assert both.get("/v1/runs?project=default").json == both.get("/v1/runs").json
    assert both.get("/v1/runs").json["runs"]


def test_a_token_of_several_projects_says_which(office):
    several = office.served.client(token(office.bench.database, "admin", projects=("a", "b")))
    refused, taken = several.get("/v1/runs"), several.get("/v1/runs?project=a")

    assert (400, "bad-request", 200) == (refused.status, refused.code, taken.status)


def test_a_token_of_every_project_sees_every_project(office):
    everywhere = office.served.client(token(office.bench.database, "admin", projects=("*",)))
    made = everywhere.post("/v1/runs", {"flow": "review", "input": INPUT, "project": "anywhere"}).json

    assert "anywhere" == everywhere.get(f"/v1/runs/{made['id']}").json["project"]
    assert 404 == office.client.get(f"/v1/runs/{made['id']}").status
    assert "default" == everywhere.get("/v1/runs").json["runs"][0]["project"]


def test_the_use_of_a_token_is_kept(office):
    used = token(office.bench.database, "runs:read", name="used")
    office.served.client(used).get("/v1/runs")
    with office.bench.database.read() as conn:
        asked = text("SELECT last_used_at FROM runclaim_tokens WHERE id = :id")
        assert conn.execute(asked, {"id": used.split("_")[1]}).scalar_one() is not None
