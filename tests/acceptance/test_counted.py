"""Counted with real processes: what twenty runs of three short phases cost the broker and PostgreSQL."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis
from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.servers import Server
    from tests.acceptance.conftest import MakeSite
    from tests.harness import Site

RUNS = 20
WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM) runclaim_", re.IGNORECASE)
STATEMENT = re.compile(r"^<(\d+)>LOG:  (?:statement|execute [^:]*): ((?:.|\n(?!<))*)", re.MULTILINE)


@pytest.fixture
def commits(private_postgres: Server) -> Callable[[], list[str]]:
    """
    Each transaction that changed something and committed since, as its statements, in the words of the server's log.

    The log and not the server's statistics: those count also what the server does for itself (autovacuum, each new
    connection), which is another number each time. A statement outside a transaction is one by itself.
    """
    with psycopg.connect(str(make_url(private_postgres.url).set(drivername="postgresql")), autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET log_statement = 'all'")
        conn.execute("ALTER SYSTEM SET log_line_prefix = '<%p>'")
        conn.execute("SELECT pg_reload_conf()")
    start = private_postgres.log.stat().st_size

    def committed() -> list[str]:
        log = private_postgres.log.read_bytes()[start:].decode()
        under_way: dict[str, list[str]] = {}
        done: list[str] = []
        for pid, statement in STATEMENT.findall(log):
            match statement.split(maxsplit=1)[0].upper():
                case "BEGIN":
                    under_way[pid] = []
                case "ROLLBACK" if " TO " not in statement.upper():
                    del under_way[pid]
                case "COMMIT":
                    done.append("\n".join(under_way.pop(pid)))
                case _ if pid in under_way:
                    under_way[pid].append(statement)
                case _:
                    done.append(statement)
        return [each for each in done if WRITES.search(each)]

    return committed


def sent(site: Site) -> Counter[str]:
    """How many messages (LPUSH) and events (PUBLISH) the broker was sent, by anybody, since it started."""
    with redis.Redis.from_url(site.told["broker"]) as client:
        told = client.info("commandstats")
    return Counter({name: told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("lpush", "publish")})


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])
def test_a_run_costs_one_message_and_five_commits(
    new_site: MakeSite, valkey_server, private_postgres, commits, grouped: bool
):
    """
    INVARIANT: a run of three short phases costs one broker message and five commits, all processes together.

    Counted over twenty runs: every LPUSH, and every transaction on the ledger that committed, by whomever: the enqueue,
    the claim and three completions a run. Reads end in a ROLLBACK and wait for nothing. Grouped, what is enqueued in
    one moment shares messages and claims; these completions write rows of the application, so each is its own.

    Breaks if a phase is claimed by a transaction of its own, or a message is sent for what a worker goes on with.
    """
    site = new_site(broker=valkey_server.url, database_url=private_postgres.url, settings={"grouped": grouped})
    before, already = sent(site), len(commits())
    runs = [site.enqueue(f"run{n}") for n in range(RUNS)]
    worker = site.worker(pool="threads", concurrency=2)
    site.ended(*runs)
    messages = sent(site) - before
    worker.stop()
    told = commits()[already:]

    of_runs = [each for each in told if "runclaim_runs" in each]
    if grouped:
        assert messages["lpush"] <= RUNS + 2
        assert 4 * RUNS < len(of_runs) <= 5 * RUNS, told
    else:
        assert RUNS == messages["lpush"]
        assert 5 * RUNS == len(of_runs), told
    # And nobody listens, so no task event is sent.
    assert 0 == messages["publish"]
    # And what the worker tells of its flows, and its counters from time to time; psycopg's good-bye changes nothing.
    rest = [each for each in told if each not in of_runs and each != "DEALLOCATE ALL"]
    once = [each for each in rest if "INTO runclaim_counters" not in each]
    assert [True] == ["INTO runclaim_flows" in each for each in once]
    assert 3 * RUNS == len(site.rows())


def test_many_enqueued_at_once_cost_one_commit_and_few_messages(
    new_site: MakeSite, valkey_server, private_postgres, commits
):
    """
    INVARIANT: a thousand runs are one transaction and ten messages, each of which names a hundred of them.

    Breaks if `enqueue_many` writes or publishes run by run.
    """
    site = new_site(broker=valkey_server.url, database_url=private_postgres.url, settings={"grouped": True})
    site.enqueue("connected")
    site.stage.runs._runtime.broker.flush()
    before, already = sent(site), len(commits())
    site.stage.steps.enqueue_many([{"name": f"run{n}"} for n in range(1000)])
    site.stage.runs._runtime.broker.flush()

    assert {"lpush": 10} == sent(site) - before
    assert 1 == len([each for each in commits()[already:] if "runclaim_runs" in each])
