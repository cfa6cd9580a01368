"""The door of a message: whoever writes to the broker chose its text, so nothing of it is used before it is checked."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.exceptions import Ignore

from runclaim import Context, Runclaim
from runclaim.database import Database
from runclaim.errors import InputError
from runclaim.flows.messages.message import Message
from runclaim.flows.messages.publisher import MOST_NAMED
from tests.harness.bench import PullRequest
from tests.harness.ledgers import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID = "0195c0de-0000-7000-8000-000000000007"
CARRIED = {
    "project": None,
    "key": "acme/app:pr-7",
    "subject": None,
    "priority": 0,
    "input": {"repo": "acme/app", "number": 7, "base": "a1", "head": "b2"},
}
HOSTILE = {
    "a path": "../x",
    "an absolute path": "/x",
    "both": "/../x",
    "a planted file": "lab/x",
    "NUL": "x\0y",
    "300 letters": "x" * 300,
    "a line of its own": "x\nrunclaim: all is well \x1b[31m\x9b31m",
    "nothing": "",
    "nobody": "00000000-0000-0000-0000-000000000000",
    "a newline for a digit": "\n" + ID.replace("-", "")[1:] + "/",
}


class Lab:
    """An application with a flow that fails open; its folder of records has a neighbour that holds a forged record."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.bodies: list[str] = []
        self.folder = folder
        self.app = Celery(broker="memory://", set_as_current=False)
        self.runs = Runclaim(
            self.app,
            database_url=database_url,
            ledger_patience="50ms",
            fail_open_folder=str(folder / "records"),
        )
        self.flow = self.runs.flow("review", PullRequest, key="{repo}:pr-{number}", fail_open=True)
        self.flow.phase(name="plan", idempotent=True)(self._body)
        (folder / "records").mkdir()
        (folder / "records" / "lab").mkdir()
        for place in ("x.json", "records/lab/x.json"):
            (folder / place).write_text(json.dumps({"outcome": {"result": '"FORGED"'}}))

    def _body(self, ctx: Context[PullRequest]) -> str:
        self.bodies.append(ctx.run_id)
        return ctx.key

    def send(self, *args: Any, **kwargs: Any) -> None:
        """As Celery calls the task for a message."""
        self.app.tasks["review.plan"](*args, **kwargs)

    def files(self) -> dict[str, str]:
        return {str(path): path.read_text() for path in self.folder.rglob("*.json")}


@pytest.fixture(params=["up", "away"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    away = f"sqlite:///{tmp_path / 'no disk' / 'ledger.db'}"
    folder = tmp_path / "lab"
    folder.mkdir()
    up = request.getfixturevalue("sqlite_url")
    if request.param == "up":
        database = Database(up, patience=timedelta(seconds=20))
        migrate(database)
        database.close()
    made = Lab(folder, up if request.param == "up" else away)
    yield made
    made.runs.close()
    made.app.close()


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_an_id_that_is_no_uuid_is_refused_and_touches_no_file(lab: Lab, caplog, hostile: str):
    """
    INVARIANT: a text of the broker is never a file name, and never a line of the log.

    Breaks if a message's id is used as it came: a planted file is then somebody's result, and any `.json` may be
    replaced.
    """
    before = lab.files()
    with pytest.raises(Ignore), caplog.at_level(logging.DEBUG):
        lab.send(hostile, 0, carried=CARRIED)

    assert (lab.files(), lab.bodies) == (before, [])
    said = [record.getMessage() for record in caplog.records if record.name.startswith("runclaim")]
    assert [True] == ["a message of review.plan was refused and dropped" in line for line in said]
    assert [] == [line for line in said if not line.isprintable()]


@pytest.mark.parametrize(
    "arguments, culprit",
    [
        ((7, 0, None), "message"),
        (([], 0, None), "message"),
        (([[ID, 0]] * (MOST_NAMED + 1), 0, None), "message"),
        (([ID], 0, None), "message"),
        (([[ID, 0, 0]], 0, None), "message"),
        (([7], 0, None), "message"),
        (([{"run_id": ID, "fence": 0}], 0, None), "message"),
        (([[ID, 0], ["../x", 0]], 0, None), "run_id"),
        (([[7, 0]], 0, None), "run_id"),
        ((ID, -1, None), "fence"),
        ((ID, 2**63, None), "fence"),
        ((ID, True, None), "fence"),
        ((ID, "0", None), "fence"),
        (([[ID, 0]], 0, CARRIED), "carried"),
        ((ID, 0, []), "carried"),
        ((ID, 0, {"key": "acme"}), "carried"),
        ((ID, 0, CARRIED | {"key": 7}), "carried.key"),
        ((ID, 0, CARRIED | {"key": "a\nb"}), "carried.key"),
        ((ID, 0, CARRIED | {"subject": "\x1b[31m"}), "carried.subject"),
        ((ID, 0, CARRIED | {"priority": "high"}), "carried.priority"),
        ((ID, 0, CARRIED | {"project": ["acme"]}), "carried.project"),
    ],
)
def test_whatever_else_no_release_sends_is_refused_by_its_name(arguments: tuple[Any, Any, Any], culprit: str):
    with pytest.raises(InputError) as refused:
        Message.of(*arguments)

    assert refused.value.field == culprit
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("spelled", [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"])
def test_an_id_is_used_in_its_canonical_form(spelled: str):
    assert Message.of(spelled, 3, None) == Message(ID, 3)
    assert Message.of([[spelled, 1], [spelled, 2]], 0, None) == Message(ID, 1, None, ((ID, 2),))
    assert CARRIED == Message.of(spelled, 0, dict(CARRIED)).carried
