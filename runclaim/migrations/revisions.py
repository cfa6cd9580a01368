"""Which revision of the tables this release brings, from which on it works, and where the scripts are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The revision this release brings; a test holds it against the newest script.
HEAD: Final = "0009"
#: The oldest revision that this release works on.
OLDEST: Final = "0009"
VERSION_TABLE: Final = "runclaim_schema_version"
#: Which scripts were applied, and which releases work on what they leave; there from revision 0008 on.
SCHEMA_TABLE: Final = "runclaim_schema"
VERSIONS: Final = Path(__file__).parent / "versions"


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables as one release knows them. Revisions are numbers of four digits, so their text sorts as they do."""

    head: str = HEAD
    oldest: str = OLDEST
    folders: tuple[Path, ...] = (VERSIONS,)


OURS: Final = Schema()
