"""compose.yaml and the Dockerfile: the schema of compose files, and what every service of ours has to have."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from release.locks import EXTRAS
from runclaim import cli

ROOT = Path(__file__).parents[2]
OURS = ("migrate", "api", "worker", "beat", "flower")
THEIRS = ("postgres", "valkey")
#: Commands of compose.yaml that `runclaim` does not have yet; whoever brings one takes it out here.
NOT_THERE_YET: set[str] = set()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return YAML(typ="safe").load((ROOT / "compose.yaml").read_text())


def dockerfile() -> list[str]:
    """The instructions, one a line."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_compose_follows_the_schema_of_compose_files():
    """The schema of compose-spec, as check-jsonschema brings it."""
    told = subprocess.run(
        [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == told.returncode, told.stdout + told.stderr


def test_the_services_are_those_of_the_documents(compose: dict[str, Any]):
    assert {*OURS, *THEIRS} == set(compose["services"])
    assert all(name in (ROOT / "docs" / "deploy.md").read_text() for name in compose["services"])


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_may_do_nothing_that_it_does_not_need(compose: dict[str, Any], name: str):
    service = compose["services"][name]

    assert "10001:10001" == service["user"]
    assert service["read_only"] is True
    assert service["init"] is True
    assert ["ALL"] == service["cap_drop"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", THEIRS)
def test_a_server_is_no_root_and_is_reached_from_inside_only(compose: dict[str, Any], name: str):
    service = compose["services"][name]

    assert service["user"] not in {"root", "0"}
    assert ["ALL"] == service["cap_drop"]
    assert ["inside"] == service["networks"]
    assert "ports" not in service
    assert compose["networks"]["inside"]["internal"] is True
    assert re.search(r":\d+\.\d+(\.\d+)?-", service["image"]), "a version, not the latest"


def test_every_service_that_stays_has_a_health_check_and_bounded_logs(compose: dict[str, Any]):
    for name, service in compose["services"].items():
        assert ("healthcheck" in service) is (name != "migrate"), name
        assert {"max-size", "max-file"} == set(service["logging"]["options"]), name


@pytest.mark.parametrize("name", [name for name in OURS if name != "migrate"])
def test_a_service_starts_once_the_schema_is_there(compose: dict[str, Any], name: str):
    wanted = compose["services"][name]["depends_on"]

    assert {"condition": "service_completed_successfully"} == wanted["migrate"]
    assert {"condition": "service_healthy"} == wanted["valkey"]


def test_no_secret_stands_in_the_file(compose: dict[str, Any]):
    text = (ROOT / "compose.yaml").read_text()

    assert not re.search(r"(?i)password: |://[^/\s]+:[^/\s]+@", text)
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())
    for service in compose["services"].values():
        assert set(service.get("secrets", [])) <= set(compose["secrets"])


def test_no_service_can_take_the_whole_machine(compose: dict[str, Any]):
    limits = {"mem_limit", "pids_limit"}

    assert [] == [name for name, service in compose["services"].items() if not service.keys() >= limits]


def test_one_image_serves_all_of_ours(compose: dict[str, Any]):
    assert {"runclaim:local"} == {compose["services"][name]["image"] for name in OURS}


@pytest.mark.parametrize("name", OURS)
def test_each_command_is_one_of_runclaims(compose: dict[str, Any], name: str):
    """Loud both ways: for a command that is missing, and for one that has come and still stands in the list."""
    command = compose["services"][name]["command"][0]
    known = command in cli.command.list_commands(None)  # type: ignore[arg-type]

    assert (command not in NOT_THERE_YET) is known


def test_the_image_runs_as_nobody_special_and_stops_by_sigterm():
    last_stage = dockerfile()[max(n for n, line in enumerate(dockerfile()) if line.startswith("FROM ")) :]

    assert "USER 10001:10001" in last_stage
    assert "STOPSIGNAL SIGTERM" in last_stage
    assert 'ENTRYPOINT ["runclaim"]' in last_stage
    assert not [line for line in dockerfile() if line.startswith("ADD ") or ":latest" in line]


def test_the_image_takes_no_package_without_its_hash():
    """INVARIANT: a package that was changed on its index is not installed. Breaks with a `pip install` of names."""
    installs = [words for line in dockerfile() for words in line.split("&&") if "pip install" in words]

    assert installs
    assert [] == [words for words in installs if not {"--require-hashes", "--no-index"} & set(words.split())]


def test_what_the_image_copies_is_there_and_not_ignored():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source
        for line in dockerfile()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]

    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source in kept


def test_the_extras_of_the_image_are_the_packages_own():
    wanted = set(EXTRAS["image"].split(","))
    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])

    assert ({"api"} & NOT_THERE_YET) == wanted - known
