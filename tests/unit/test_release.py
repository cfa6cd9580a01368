"""What is published: the packages of a set-up are pinned by hashes, and the licences are those of what is installed."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical
from packaging.version import Version

import dev
from release.licences import PAGE, installed, row
from release.locks import EXTRAS, UV, Locked, locked, path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted({*EXTRAS, UV})
#: What the licences of what we depend on begin with; a new kind is a decision.
ALLOWED = ("Apache", "BSD", "ISC", "LGPL", "MIT", "MPL", "New BSD", "PSF", "Python Software Foundation", "Unlicense")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonical(name): number for name, _, number in (line.partition("==") for line in lines)}


def wanted(extras: str) -> set[str]:
    """The packages that the project and its extras name."""
    optional = PROJECT["optional-dependencies"]
    asked = [each for extra in extras.split(",") for each in (*PROJECT["dependencies"], *optional[extra])]
    for own in [Requirement(each) for each in asked if each.startswith("runclaim[")]:
        asked += [each for extra in own.extras for each in optional[extra]]
    return {canonical(Requirement(each).name) for each in asked} - {"runclaim"}


def follows(name: str) -> set[str]:
    """What an installed package needs here."""
    needed = [Requirement(each) for each in requires(name) or ()]
    return {canonical(each.name) for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})}


def is_here(package: Locked) -> bool:
    """Whether the version of the lock is installed; the tests also run on the lowest and the highest versions."""
    try:
        return version(package.name) == package.version
    except PackageNotFoundError:
        return False


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_the_pinned_versions_with_hashes_and_without_an_address(lock: str):
    """INVARIANT: constraints.txt and the locks are one. Breaks until `python3 dev.py lock` is run after a change."""
    text = path(lock).read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]

    assert {each.name: each.version for each in locked(lock)}.items() <= pins().items()
    assert len(entries) == len(locked(lock))
    assert [] == [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]
    assert "://" not in text


@pytest.mark.parametrize("lock", sorted(EXTRAS))
def test_a_lock_has_all_that_its_extras_need(lock: str):
    """INVARIANT: an installer that takes only hashes has all it needs. Breaks if a dependency is not locked."""
    names = {canonical(each.name) for each in locked(lock)}
    here = [each.name for each in locked(lock) if is_here(each)]

    assert set() == wanted(EXTRAS[lock]) - names
    assert {} == {name: missing for name in here if (missing := follows(name) - names)}


def test_every_set_up_installs_by_hashes_and_builds_with_what_is_locked():
    for profile in dev.EXTRAS:
        (_, packages), (_, checkout) = dev.packages(profile).items()

        assert "--require-hashes" in packages
        assert {"--no-deps", "--no-build-isolation"} <= set(checkout)
        assert {"hatchling", "editables"} <= {each.name for each in locked(profile)}


def test_the_image_has_a_parser_that_checks_the_end_of_a_chunk():
    """CVE-2025-43859."""
    (found,) = (each for each in locked("image") if each.name == "h11")

    assert Version(found.version) >= Version("0.16")


def test_the_page_of_licences_is_that_of_the_image():
    """INVARIANT: docs/licences.md says what is installed. Breaks until `python3 dev.py lock` is run."""
    packages = installed("image")
    table = PAGE.read_text().splitlines()[-len(packages) :]

    assert [each.name for each in packages] == [line.removeprefix("| ").partition(" | ")[0] for line in table]
    assert [] == [row(each) for each in packages if is_here(each) and row(each) not in table]


def test_every_licence_is_of_a_known_kind():
    rows = re.findall(r"^\| ([\w.-]+) \| [\w.]+ \| (.*) \|$", PAGE.read_text(), re.MULTILINE)

    assert len(installed("image")) == len(rows) - 1
    assert [] == [(name, licence) for name, licence in rows[1:] if not licence.startswith(ALLOWED)]


def test_the_packages_have_the_licence_with_them():
    assert ["LICENSE"] == PROJECT["license-files"]
    assert "MIT" == distribution("runclaim").metadata["License-Expression"]


@pytest.mark.parametrize(
    "row, bound",
    [
        ("Python", PROJECT["requires-python"]),
        ("Celery", next(each for each in PROJECT["dependencies"] if each.startswith("celery")).removeprefix("celery")),
    ],
)
def test_the_page_of_support_names_the_bounds_of_the_package(row: str, bound: str):
    page = (ROOT / "SUPPORT.md").read_text()

    assert f"| {row} | {bound.removeprefix('>=')} or newer" in page
