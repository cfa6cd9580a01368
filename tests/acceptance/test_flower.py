"""What Flower's own API tells of phases: each execution with its run key and its verdict."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

import pytest

from runclaim.ledger.dispatch import Due
from runclaim.servers.machine import free_port
from runclaim.states import RunState
from tests.harness import Site, until

if TYPE_CHECKING:
    from runclaim.servers import Server
    from tests.acceptance.conftest import MakeSite


class Flower:
    """A Flower on a site's broker, asked over HTTP."""

    def __init__(self, site: Site) -> None:
        self._url = f"http://127.0.0.1:{free_port()}"
        words = ["flower", "--address=127.0.0.1", f"--port={self._url.rpartition(':')[2]}"]
        self.process = site.celery("flower", words, env={"FLOWER_UNAUTHENTICATED_API": "true"})
        until(self._answers, "an answer from Flower", so_far=lambda: self.process.tail)

    def _answers(self) -> bool:
        try:
            return self._get("/healthcheck") is not None
        except OSError:
            return False

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._url + path, timeout=5) as answer:
            found: bytes = answer.read()
        return found

    def executions(self) -> list[tuple[str, str, str]]:
        """(task, args, state) of every phase that Flower knows of."""
        tasks = json.loads(self._get("/api/tasks?limit=1000")).values()
        return [(each["name"], each["args"], each["state"]) for each in tasks if str(each["name"]).startswith("steps.")]

    def shows(self, task: str, key: str, state: str) -> None:
        """Wait until the execution is listed."""
        until(lambda: (task, key, state) in self.executions(), f"{task} {key} {state}", so_far=self.executions)


@pytest.fixture
def watched(new_site: MakeSite, valkey_server: Server, postgres_url: str) -> tuple[Site, Flower]:
    """A site whose worker was started without events, as people start it: Flower asks for them."""
    phases = {"third": {"max_attempts": 2}}
    site = new_site(broker=valkey_server.url, database_url=postgres_url, subjects=True, phases=phases)
    flower = Flower(site)
    site.worker(concurrency=2, quiet=False)
    site.beat()
    return site, flower


@pytest.mark.postgres
def test_flower_lists_every_execution_of_a_phase_with_its_run_key_and_verdict(watched: tuple[Site, Flower]):
    """
    INVARIANT: what runs inside one delivery is listed phase by phase, and a refused message as a DUPLICATE.

    Breaks if the phases after the first send no events, or if verdicts that Celery does not know are not told.
    """
    site, flower = watched
    until(lambda: _is_heard(site, flower), "Flower hears of phases")
    good = site.enqueue("good", about="good")
    site.ended(good)
    site.stage.runs.ledger.publisher.publish([Due(good.id, 0, "steps", "first", None, "good", 0)])
    failing = site.enqueue("failing", about="failing", third="fail 2")
    blocked = site.enqueue("blocked", about="blocked", first="block")
    old = site.enqueue("old", about="subject", second="check")
    site.started(old, "second")
    site.enqueue("new", about="subject")
    site.ended(failing, blocked, old, state=None)

    flower.shows("steps.first", "good", "SUCCESS")
    flower.shows("steps.second", "good", "SUCCESS")
    flower.shows("steps.third", "good", "SUCCESS")
    flower.shows("steps.first", "good", "DUPLICATE")
    flower.shows("steps.third", "failing", "RETRY")
    flower.shows("steps.third", "failing", "FAILURE")
    flower.shows("steps.first", "blocked", "BLOCKED")
    flower.shows("steps.second", "old", "CLAIMLOST")
    assert [failing.state, blocked.state, old.state] == [RunState.FAILED, RunState.BLOCKED, RunState.SUPERSEDED]


def _is_heard(site: Site, flower: Flower) -> bool:
    """Whether events arrive: Flower connects and asks for them in its own time."""
    name = f"probe{len(site.starts())}"
    probe = site.enqueue(name, about=name)
    site.ended(probe)
    return any(task == "steps.second" for task, _, _ in flower.executions())
