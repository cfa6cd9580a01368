"""docs/licences.md: what the pinned packages of the image say about their licences."""

from __future__ import annotations

from importlib.metadata import metadata
from typing import Final

from packaging.markers import Marker

import dev
from release.locks import Locked, locked

PAGE: Final = dev.ROOT / "docs" / "licences.md"
_OSI: Final = "License :: OSI Approved :: "
#: What is longer is the text of a licence.
_LONGEST_NAME: Final = 60
_HEAD: Final = """# Licences

runclaim has the MIT licence. These are the packages that are installed with it in the image, which has every extra for
production, and what they say about their licences. The table is made by `python3 dev.py lock`, and a test compares it
with what is installed.

| package | version | licence |
|---|---|---|
"""


def licence(name: str) -> str:
    """What a package says about its licence in its metadata: the expression, its classifiers, or a short name."""
    found = metadata(name)
    said, expression = ("".join(found.get_all(each) or ()) for each in ("License", "License-Expression"))
    classified = [each.removeprefix(_OSI) for each in found.get_all("Classifier") or () if each.startswith(_OSI)]
    return expression or ", ".join(classified) or (said if len(said) < _LONGEST_NAME else "")


def page() -> str:
    """The page as it has to be. Raises: PackageNotFoundError for a package that is not installed here."""
    return _HEAD + "\n".join(map(row, installed("image"))) + "\n"


def row(package: Locked) -> str:
    """A package's line of the table."""
    return f"| {package.name} | {package.version} | {licence(package.name)} |"


def installed(lock: str) -> list[Locked]:
    """The packages of a lock that this platform and Python need."""
    return [each for each in locked(lock) if not each.marker or Marker(each.marker).evaluate()]
