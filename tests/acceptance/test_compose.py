"""
Each service of compose.yaml, by its very command, without Docker: its own health check passes, and a run goes through.

Changed for the machine of the tests: the addresses of the servers, the ports, /tmp, and the paths of the programs. A
command that `runclaim` does not have yet (tests/unit/test_deploy.py names it) is run as the Celery program it becomes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from runclaim import cli
from runclaim.servers.machine import free_port
from tests.harness import until
from tests.harness.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())["services"]
KNOWN = cli.command.list_commands(None)  # type: ignore[arg-type]
BECOMES_CELERY = {"worker", "beat", "flower"}
#: What can be started here: all but a command that is neither there nor one of Celery's.
STARTED = [name for name in ("worker", "beat", "flower", "api") if name in KNOWN or name in BECOMES_CELERY]


class Deployment(Processes):
    """The services of compose.yaml as processes of this machine."""

    def __init__(self, folder: Path, *, broker: str, database_url: str) -> None:
        super().__init__(folder, {})
        (folder / "database_url").write_text(database_url + "\n")
        self._ports = {"8400": str(free_port()), "5555": str(free_port())}
        self._changed = {
            "redis://valkey:6379/0": broker,
            "/run/secrets/database_url": str(folder / "database_url"),
            "${RUNCLAIM_APP:-reviews}": "reviews",
        }

    def here(self, word: str) -> str:
        """A word of compose.yaml, as it is on this machine."""
        # /tmp first: the other replacements may lie in it.
        for old, new in {"/tmp/": f"{self.folder}/", "$$": "$", **self._changed, **self._ports}.items():
            word = word.replace(old, new)
        return word.replace("0.0.0.0", "127.0.0.1")

    def environment(self, name: str) -> dict[str, str]:
        found = {key: self.here(value) for key, value in SERVICES[name]["environment"].items()}
        if "RUNCLAIM_ALIVE_FILE" in found:
            # Each container has a /tmp of its own.
            found["RUNCLAIM_ALIVE_FILE"] += f"-{name}"
        return found | {"PYTHONPATH": f"{ROOT}:{ROOT / 'deploy'}", "FLOWER_UNAUTHENTICATED_API": "true"}

    def serve(self, name: str) -> Any:
        words = [self.here(word) for word in SERVICES[name]["command"]]
        program = [str(Path(sys.executable).parent / "runclaim")] if words[0] in KNOWN else self.celery_program()
        return self.start(name, [*program, *words], env=self.environment(name))

    def celery_program(self) -> list[str]:
        return [sys.executable, "-m", "celery", "-A", self.here(SERVICES["worker"]["environment"]["RUNCLAIM_APP"])]

    def is_healthy(self, name: str) -> bool:
        how, *words = [self.here(word) for word in SERVICES[name]["healthcheck"]["test"]]
        if how == "CMD-SHELL":
            command = ["/bin/sh", "-c", words[0].replace("/alive", f"/alive-{name}")]
        else:
            command = [sys.executable, *words[1:]]
        return subprocess.run(command, capture_output=True, check=False, timeout=20).returncode == 0

    def story(self) -> str:
        return "\n".join(f"--- {process.name} (up: {process.is_up})\n{process.tail}" for process in self.processes)


@pytest.fixture
def deployment(tmp_path: Path, valkey_server: Any, postgres_url: str) -> Iterator[Deployment]:
    with Deployment(tmp_path / "compose", broker=valkey_server.url, database_url=postgres_url) as made:
        yield made


def test_every_service_starts_is_healthy_and_a_run_goes_through(deployment: Deployment):
    """
    INVARIANT: what compose.yaml would start works: schema, worker, beat, Flower, and their health checks.

    Breaks if a service's command, environment or health check no longer fits, or one starts before the schema.
    """
    migrate = deployment.serve("migrate")
    assert 0 == migrate.wait(60), migrate.text
    assert not deployment.is_healthy("worker")
    for name in STARTED:
        deployment.serve(name)
    for name in STARTED:
        healthy = lambda name=name: deployment.is_healthy(name)  # noqa: E731
        until(healthy, f"a healthy {name}", within=60, so_far=deployment.story)

    code = (
        "import reviews, datetime; run = reviews.review.enqueue(repo='acme/app', number=7, head='b2');"
        "print(run.wait(datetime.timedelta(minutes=1)))"
    )
    asked = deployment.start("asked", [sys.executable, "-c", code], env=deployment.environment("worker"))
    assert 0 == asked.wait(90), deployment.story()
    for process in deployment.processes:
        if process.name in STARTED:
            assert process.is_up, process.tail
            process.stop()


def test_nothing_is_left_out_in_silence():
    """What is not started here is exactly what has no program yet."""
    assert {"api"} - set(KNOWN) == {"worker", "beat", "flower", "api"} - set(STARTED)
