"""
The pages as the site has them: one folder, whose links lead from page to page.

In the repository the pages link to files outside `docs/`, too. A link to a file that is not a page of the site becomes
its own text.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Final

from website import llms
from website.contents import DOCS, ROOT, sections

BUILD: Final = ROOT / "build"
PAGES: Final = BUILD / "pages"
CONFIG: Final = BUILD / "mkdocs.yml"
SITE: Final = BUILD / "site"
_LINK: Final = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def places() -> dict[Path, str]:
    """Every page of the site: the file in the repository, and its path on the site."""
    listed = [page.path for section in sections() for page in section.pages]
    outside = {path: _place_outside(path) for path in listed if not path.is_relative_to(DOCS)}
    return {path: path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))} | outside


def _place_outside(path: Path) -> str:
    """In lower case, as addresses are; the README of an example is the page of its folder's name."""
    place = path.relative_to(ROOT)
    return f"{place.parent}.md" if place.name == "README.md" else place.name.lower()


def stage() -> None:
    """Write the folder that MkDocs reads, and its configuration with the index as the navigation."""
    shutil.rmtree(PAGES, ignore_errors=True)
    site = places()
    for path, place in site.items():
        target = PAGES / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(linked(path, site))
    for picture in DOCS.glob("*.svg"):
        shutil.copy(picture, PAGES)
    shutil.copy(ROOT / "website" / "extra.css", PAGES)
    (PAGES / "llms.txt").write_text(_on_the_site(llms.short(), site))
    (PAGES / "llms-full.txt").write_text(llms.full())
    nav = [{"Overview": "index.md"}] + [
        {section.title: [{page.title: site[page.path]} for page in section.pages]} for section in sections()
    ]
    # JSON is YAML.
    CONFIG.write_text(json.dumps({"INHERIT": "../website/mkdocs.yml", "nav": nav}, indent=1))


def linked(path: Path, site: dict[Path, str]) -> str:
    """The text of a page, with its links as the site has them."""

    def link(match: re.Match[str]) -> str:
        text, address, anchor = match.groups()
        target = (path.parent / address).resolve()
        if target not in site:
            return text
        return f"[{text}]({os.path.relpath(site[target], Path(site[path]).parent)}{anchor or ''})"

    return _LINK.sub(link, path.read_text())


def _on_the_site(text: str, site: dict[Path, str]) -> str:
    """llms.txt with the addresses of the site's pages."""
    for path, place in site.items():
        text = text.replace(f"]({path.relative_to(ROOT).as_posix()})", f"]({place.removesuffix('.md')}.html)")
    return text
