"""Real servers for the tests. `conftest.py` turns them into fixtures; CONTRIBUTING.md says where they come from."""

from tests.servers.desk import VARIABLE, Desk, External, Remote, external, started
from tests.servers.postgres import administer, database, postgres
from tests.servers.rabbitmq import rabbitmq

__all__ = [
    "VARIABLE",
    "Desk",
    "External",
    "Remote",
    "administer",
    "database",
    "external",
    "postgres",
    "rabbitmq",
    "started",
]
