"""Requests whose COMMIT got no answer: what they did is read back, answered, and rung for as any other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.api.conftest import WANTED
from tests.commitcut import commit_cut
from tests.pgcut import When

if TYPE_CHECKING:
    from tests.api.conftest import Office


@pytest.mark.parametrize("headers", [{}, {"idempotency_key": "k"}], ids=["no key", "a key"])
@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER], ids=["before", "after"])
def test_a_run_whose_commit_got_no_answer_is_published_once(desk_office: Office, headers: dict[str, str], when: When):
    """
    INVARIANT: what a request has started is rung for, however its commit was answered.

    Breaks if a request that is read back is taken for a repeated one: its run then waits for the next dispatch.
    """
    bench, service = desk_office.bench, desk_office.served.server
    service.attach(SimpleNamespace(flows=bench.flows, ledger=bench.ledger, config=bench.config))
    # A token's first use is a commit too.
    assert 200 == desk_office.client.get("/v1/runs").status
    with commit_cut(bench.config.database_url) as cut:
        cut.watch(service.database)
        cut.order(when)
        answer = desk_office.client.post("/v1/runs", WANTED, **headers)
        cut.check()

    assert 201 == answer.status, answer
    assert [answer.json["id"]] == [due.run_id for due in bench.rung]
