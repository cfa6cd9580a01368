"""tokens: shown once, kept as a hash, good until they expire or are revoked."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from runclaim.errors import InputError
from runclaim.ledger.doors import tokens
from runclaim.ledger.doors.tokens import Scope

HOUR = timedelta(hours=1)


def made(conn, *scopes, lasts=None, projects=("default",)):
    return tokens.create(conn, name="ci", scopes=scopes or [Scope.RUNS_READ], projects=projects, lasts=lasts)


def view(conn, token):
    found = tokens.find(conn, token)
    return None if found is None else found[0]


def test_a_token_is_found_with_what_it_may_do(conn, clock):
    token = made(conn, Scope.RUNS_READ, Scope.WORKER, projects=("a", "b"))
    found = view(conn, token)

    assert ("ci", {"runs:read", "worker"}, {"a", "b"}) == (found.name, found.scopes, found.projects)
    assert (clock.now, None, None, None) == (
        found.created_at, found.expires_at, found.last_used_at, found.revoked_at
    )  # fmt: skip
    assert (True, False, False) == tuple(found.may(each) for each in (Scope.WORKER, Scope.RUNS_WRITE, Scope.ADMIN))
    assert (True, False) == (found.sees("a"), found.sees("c"))


def test_admin_may_do_everything_and_a_star_is_every_project(conn):
    found = view(conn, made(conn, Scope.ADMIN, projects=("*",)))

    assert all(found.may(scope) for scope in Scope)
    assert found.sees("whatever")


def test_the_ledger_holds_no_secret(conn):
    """
    INVARIANT: whoever reads the ledger cannot use a token.

    Breaks if the secret, or anything that it can be computed from, is written.
    """
    token = made(conn)
    held = str([tuple(row) for row in conn.execute(text("SELECT * FROM runclaim_tokens"))])

    assert token.split("_")[1] in held
    assert token.split("_")[2] not in held


@pytest.mark.parametrize(
    "given",
    [
        "rc_{id}_{spoiled}",
        "rc_0{id}_{secret}",
        "rc_000000000000_{secret}",
        "rc_{id}_{secret}0",
        "RC_{id}_{secret}",
        "{secret}",
        "rc_éééééééééééé_{secret}",
        " rc_{id}_{secret}",
        "rc_{id}_{secret}\n",
        "",
    ],
)
def test_what_is_no_token_finds_none(conn, given):
    _, token_id, secret = made(conn).split("_")
    spoiled = secret[:-1] + ("0" if secret[-1] != "0" else "1")

    assert view(conn, given.format(id=token_id, secret=secret, spoiled=spoiled)) is None


def test_a_token_is_good_until_it_expires(conn, clock):
    token = made(conn, lasts=HOUR)
    clock.advance(HOUR - timedelta(seconds=1))
    before = view(conn, token)
    clock.advance(timedelta(seconds=1))

    assert before is not None
    assert view(conn, token) is None
    assert 0 == tokens.usable(conn)
    assert 1 == len(tokens.listed(conn))


def test_a_revoked_token_is_none_at_once(conn):
    token = made(conn)
    token_id = token.split("_")[1]

    assert (True, None, False) == (tokens.revoke(conn, token_id), view(conn, token), tokens.revoke(conn, token_id))
    assert tokens.listed(conn)[0].revoked_at is not None
    assert not tokens.revoke(conn, "nobody")


def test_a_replaced_token_stays_good_for_the_overlap(conn, clock):
    old = made(conn, Scope.WORKER, projects=("a",))
    new = tokens.replace(conn, old.split("_")[1], overlap=HOUR, lasts=None)
    both = view(conn, old), view(conn, new)
    clock.advance(HOUR)

    assert both[0].scopes == both[1].scopes
    assert ("ci", {"a"}) == (both[1].name, both[1].projects)
    assert (None, both[1].id) == (view(conn, old), view(conn, new).id)
    assert tokens.replace(conn, old.split("_")[1], overlap=HOUR, lasts=None) is None


def test_an_overlap_does_not_lengthen_a_token_that_would_end_before(conn, clock):
    old = made(conn, lasts=HOUR / 2)
    tokens.replace(conn, old.split("_")[1], overlap=HOUR, lasts=None)
    clock.advance(HOUR / 2)

    assert view(conn, old) is None


def test_the_last_use_is_kept_to_the_minute(conn, clock):
    token = made(conn)
    token_id = token.split("_")[1]
    asked, times = [], []
    for _ in range(4):
        _, is_stale = tokens.find(conn, token)
        asked.append(is_stale)
        times.append(clock.now)
        tokens.note_use(conn, token_id)
        clock.advance(timedelta(seconds=31))

    assert [True, False, True, False] == asked
    assert times[2] == tokens.listed(conn)[0].last_used_at


@pytest.mark.parametrize("how", [{"scopes": []}, {"projects": []}, {"name": ""}])
def test_a_token_for_nothing_is_refused(conn, how):
    with pytest.raises(InputError):
        tokens.create(conn, **{"name": "x", "scopes": [Scope.WORKER], "projects": ["a"], "lasts": None} | how)


def test_a_scope_of_a_later_release_is_nothing_here(conn):
    token = made(conn)
    conn.execute(text("""UPDATE runclaim_tokens SET scopes = '["runs:read", "secrets:read"]'"""))

    assert {"runs:read"} == view(conn, token).scopes
