"""
`python3 dev.py docs`: renew what is made from the pages and from the code, and build the site into build/site.

The build is strict: it fails at a link or an anchor that leads nowhere, and at anything that a page would load from
another host.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from website import house, llms, picture
from website.contents import DOCS, ROOT
from website.stage import CONFIG, SITE, stage

if TYPE_CHECKING:
    from pathlib import Path


def made() -> dict[Path, str]:
    """Each file of the repository that is made here, with what it has to hold."""
    return {
        DOCS / "llms.txt": llms.short(),
        DOCS / "how-it-works.svg": picture.picture(),
        house.PAGE: house.renewed(),
    }


def loads_from_elsewhere() -> list[str]:
    """What a page of the site would load from another host, with the page."""
    loading = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"?((?:https?:)?//[^\"\s>]+)")
    return [
        f"{page.relative_to(SITE)}: {address}"
        for page in sorted(SITE.rglob("*.html"))
        for address in loading.findall(page.read_text())
    ]


def main() -> None:
    """Renew, build, check."""
    for path, text in made().items():
        if path.read_text() != text:
            path.write_text(text)
            print(f"runclaim: renewed {path.relative_to(ROOT)}")
    stage()
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-f", str(CONFIG), "-d", str(SITE)]
    # Material prints a notice about a future MkDocs, which would fail no build and help no reader.
    built = subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=False)
    if built.returncode:
        sys.exit("runclaim: the site was not built.\nFix: mend the pages that the lines above name.")
    if foreign := loads_from_elsewhere():
        sys.exit("\n".join(["runclaim: pages load from other hosts.\nFix: bring it into the repository.", *foreign]))
    print(f"runclaim: built {SITE.relative_to(ROOT)}; open {SITE / 'index.html'}")


if __name__ == "__main__":
    main()
