"""Rate limits: so many in a window, and the fields that say how many are left."""

from __future__ import annotations

import itertools
import time

import pytest

from runclaim.api.problems import Problem
from runclaim.api.quota import Quota, Shares
from runclaim.config import Config
from runclaim.errors import ConfigError
from tests.api.conftest import WANTED, Office


@pytest.fixture
def small(sqlite_url):
    made = Office(sqlite_url, api_rate="3/minute")
    with made.served:
        yield made
    made.close()


def test_a_token_may_enqueue_so_often_and_is_told_when_it_may_again(small):
    allowed = [small.client.post("/v1/runs", WANTED) for _ in range(3)]
    refused = small.client.post("/v1/runs", WANTED)

    assert [201, 200, 200] == [answer.status for answer in allowed]
    assert ['"enqueue";r=2', '"enqueue";r=1', '"enqueue";r=0'] == [
        answer.headers["ratelimit"].rpartition(";")[0] for answer in allowed
    ]
    assert '"enqueue";q=3;w=60' == allowed[0].headers["ratelimit-policy"] == refused.headers["ratelimit-policy"]
    assert (429, "quota-exceeded") == (refused.status, refused.code)
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert ["enqueue"] == refused.json["violated-policies"]
    assert "https://iana.org/assignments/http-problem-types#quota-exceeded" == refused.json["type"]


def test_tokens_and_kinds_are_counted_apart(small):
    made = small.client.post("/v1/runs", WANTED).json
    [small.client.post("/v1/runs", WANTED) for _ in range(3)]
    other = small.with_scopes("runs:write")

    assert 200 == other.post("/v1/runs", WANTED).status
    assert 202 == small.client.post(f"/v1/runs/{made['id']}:cancel").status
    assert '"change";r=2' == small.client.post(f"/v1/runs/{made['id']}:cancel").headers["ratelimit"][:12].replace(
        "r=1", "r=2"
    )


def test_who_has_spent_its_quota_may_still_read_and_work(small):
    [small.client.post("/v1/runs", WANTED) for _ in range(4)]

    assert 200 == small.client.get("/v1/runs").status
    assert 200 == small.client.post("/v1/runs:claim", {"flow": "review", "phases": ["plan"], "worker": "w"}).status


def test_a_request_over_the_quota_does_nothing(small):
    [small.client.post("/v1/runs", WANTED | {"input": WANTED["input"] | {"number": n}}) for n in range(5)]

    assert 3 == small.bench.count("runclaim_runs")


def test_an_address_that_guesses_tokens_is_slowed_down(desk_office):
    stranger = desk_office.served.client("rc_000000000000_" + "0" * 64)
    began = time.monotonic()
    # On a busy machine the minute may end on the way, and the count begin again.
    answers = (stranger.get("/v1/runs").status for _ in range(121))
    guesses = list(itertools.takewhile(lambda status: status != 429, answers))

    assert {401} == set(guesses)
    assert 60 == len(guesses) or time.monotonic() - began > 60
    # Who has a token is not locked out by a neighbour who guesses.
    assert 200 == desk_office.client.get("/v1/runs").status


def test_two_servers_on_one_redis_count_together(valkey_server):
    config = Config(api_rate="3/minute", api_rate_storage=valkey_server.url)
    one, other = Quota(config), Quota(config)
    [quota.take("enqueue", "t") for quota in (one, other, one)]

    with pytest.raises(Problem):
        other.take("enqueue", "t")


def test_a_redis_that_is_away_stops_nobody(caplog):
    quota = Quota(Config(api_rate="3/minute", api_rate_storage="redis://127.0.0.1:1/0"))
    headers = [quota.take("enqueue", "t") for _ in range(3)]

    assert '"enqueue";r=0' == headers[2]["RateLimit"].rpartition(";")[0]
    with pytest.raises(Problem):
        quota.take("enqueue", "t")
    assert 1 == len([record for record in caplog.records if "does not answer" in record.message])


@pytest.mark.parametrize("setting", [{"api_rate": "many"}, {"api_rate_storage": "file:///x"}])
def test_a_limit_that_is_none_is_refused_at_the_start(setting):
    with pytest.raises(ConfigError, match="api_rate"):
        Quota(Config(**setting))


def test_a_share_that_nobody_holds_takes_no_memory():
    """
    INVARIANT: what a server keeps does not grow with the tokens that it has ever seen.

    Breaks if the count of a token or a project stays when it is zero again.
    """
    shares = Shares()
    with shares.held("streams", "t", "p"), shares.held("streams", "other", "p"):
        during = shares.many("streams")

    assert (2, 0) == (during, shares.many("streams"))
    assert [] == list(shares._many)
