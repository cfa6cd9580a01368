"""Page tokens: opaque, signed, and of one listing."""

from __future__ import annotations

import base64

import pytest

from tests.api.conftest import WANTED


@pytest.fixture
def page(desk_office):
    [desk_office.enqueued(number) for number in range(3)]
    return desk_office.client.get("/v1/runs?page_size=1&flow=review").json["next_page_token"]


def refused(client, query):
    answer = client.get(f"/v1/runs?page_size=1&{query}")
    return (answer.status, answer.code)


def test_a_token_that_was_touched_anywhere_is_refused(desk_office, page):
    """
    INVARIANT: a page token says what we said, to the bit.

    Breaks if the signature leaves anything out, or another spelling of the same bytes is taken.
    """
    for place in range(len(page)):
        other = "A" if page[place] != "A" else "B"
        touched = page[:place] + other + page[place + 1 :]
        assert (400, "invalid-page-token") == refused(desk_office.client, f"flow=review&page_token={touched}"), place


@pytest.mark.parametrize("change", [
    "page_token={page}", "flow=deploy&page_token={page}", "flow=review&state=queued&page_token={page}",
    "flow=review&order_by=enqueued_at%20asc&page_token={page}",
    "flow=review&since=2020-01-01T00:00:00Z&page_token={page}",
    "flow=review&page_token={page}%3D", "flow=review&page_token=%20{page}", "flow=review&page_token=",
    "flow=review&page_token=eA", "flow=review&page_token=é",
])  # fmt: skip
def test_a_token_of_another_question_is_refused(desk_office, page, change):
    change = change.replace("é", "%C3%A9")

    assert (400, "invalid-page-token") == refused(desk_office.client, change.format(page=page))


def test_a_token_of_another_project_is_refused(desk_office, page):
    theirs = desk_office.with_scopes("admin", projects=("theirs",))
    theirs.post("/v1/runs", WANTED)

    assert (400, "invalid-page-token") == refused(theirs, f"flow=review&page_token={page}")


def test_another_size_of_page_goes_on_where_the_last_one_ended(desk_office, page):
    rest = desk_office.client.get(f"/v1/runs?page_size=50&flow=review&page_token={page}").json

    assert (2, "") == (len(rest["runs"]), rest["next_page_token"])


def test_a_forged_place_is_refused(desk_office, page):
    raw = base64.urlsafe_b64decode(page + "==")
    forged = base64.urlsafe_b64encode(raw[:32] + b"9999-01-01T00:00:00.000000Z/" + b"f" * 36).decode().rstrip("=")

    assert (400, "invalid-page-token") == refused(desk_office.client, f"flow=review&page_token={forged}")


def test_every_server_of_a_ledger_takes_the_tokens_of_the_others(desk_office, page):
    from tests.api.served import Served

    with Served(desk_office.bench.config) as other:
        answer = other.client(desk_office.token).get(f"/v1/runs?page_size=1&flow=review&page_token={page}")

    assert 200 == answer.status
