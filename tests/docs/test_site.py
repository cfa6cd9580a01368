"""The documentation's front: the index lists every page, links lead somewhere, what is made from pages is current."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from website import llms
from website.__main__ import made
from website.contents import DOCS, ROOT, sections
from website.house import DRAWINGS, house
from website.stage import linked, places

SITE = places()
PAGES = sorted({*SITE, *ROOT.glob("*.md")})
#: Where sentences are written: code, pages, configuration.
WRITTEN = [
    path
    for name in ("runclaim", "tests", "examples", "deploy", "benchmarks", "website", "docs", ".")
    for path in ((ROOT / name).rglob("*") if name != "." else ROOT.glob("*"))
    if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml"} or path.name in {"Makefile", "Dockerfile"}
]


def prose(path: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^ *```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors that a page's headings have, as forges and MkDocs name them."""
    titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_index_lists_every_page_once():
    """INVARIANT: a page that exists can be found. Breaks when a page is added, moved or removed without its line."""
    listed = [page.path for section in sections() for page in section.pages]
    # The decisions are listed by a page of their own; the README is the front of the repository.
    expected = {path for path in [*DOCS.glob("*.md"), *ROOT.glob("*.md")] if path.name not in {"index.md", "README.md"}}

    assert len(set(listed)) == len(listed)
    assert set() == expected - set(listed)
    assert [] == [path for path in listed if not path.exists()]


def test_every_line_of_the_index_is_a_title_a_page_and_one_sentence():
    lines = re.findall(r"^- .*$", (DOCS / "index.md").read_text(), re.MULTILINE)
    pages = [page for section in sections() for page in section.pages]

    assert ["Tutorial", "How-to guides", "Reference", "Why"] == [section.title for section in sections()]
    assert len(lines) == len(pages)
    assert [] == [page.title for page in pages if not page.sentence.endswith(".")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_anchor_that_a_page_links_to_is_a_heading(path: Path):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)]+)\)", prose(path))
    targets = [((path.parent / file).resolve() if file else path, anchor) for file, anchor in links]

    assert [] == [(str(target), anchor) for target, anchor in targets if anchor not in anchors(target)]


@pytest.mark.parametrize("path", sorted(SITE), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_on_the_site_leads_to_a_page_of_the_site(path: Path):
    site = {Path(place) for place in SITE.values()} | {Path(picture.name) for picture in DOCS.glob("*.svg")}
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", linked(path, SITE))
    here = Path("/", SITE[path]).parent
    targets = [Path(*(here / link).resolve().parts[1:]) for link in links]

    assert [] == [str(target) for target in targets if target not in site]


@pytest.mark.parametrize("path", made(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_made_from_the_pages_and_the_code_is_current(path: Path):
    """INVARIANT: llms.txt, the picture and the house say what their sources say. Breaks until `make docs` is run."""
    assert made()[path] == path.read_text(), "run `make docs`"


def test_the_full_text_for_language_models_has_every_page():
    text = llms.full()

    assert [] == [
        path
        for path in (page.path for each in sections() for page in each.pages)
        if path.read_text().strip() not in text
    ]


@pytest.mark.parametrize("package", DRAWINGS.values())
def test_the_house_has_a_place_for_every_module_of_the_package(package: str):
    """INVARIANT: CONTRIBUTING.md leaves no room out. Breaks when the contract that it is made from does."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    folder = ROOT / package.replace(".", "/")
    rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    drawn = set(re.findall(r"\w+", " ".join(line.split("  ")[0] for line in house(package).splitlines()[1:-1])))

    assert any(contract.get("exhaustive") for contract in contracts if [package] == contract.get("containers"))
    assert rooms - {"__init__", "__main__"} == drawn


def test_the_commits_of_the_picture_are_the_steps_of_its_page():
    drawn = ET.parse(DOCS / "how-it-works.svg").findall(".//{*}text[@class='number']")
    steps = re.findall(r"^(\d)\. \*\*", (DOCS / "how-it-works.md").read_text(), re.MULTILINE)

    assert steps
    assert steps == [number.text for number in drawn]


@pytest.mark.parametrize("path", sorted(SITE), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_list_has_an_empty_line_before_it(path: Path):
    """Else MkDocs makes one paragraph of both, where a forge makes a list."""
    before = re.findall(r"^(?! *(?:[-*|>]|\d+\.) )(\S.*)\n(?:- |1\. )", prose(path), re.MULTILINE)

    assert [] == before


def test_no_document_is_named_that_is_not_in_the_repository():
    """INVARIANT: who reads the repository has all of it. Breaks when a note of somebody's own is named as a source."""
    files = {part for path in WRITTEN for part in (path.name, str(path.relative_to(ROOT)))}
    named = [
        (path, name)
        for path in WRITTEN
        for name in re.findall(
            r"(?<![\w/.*{])[\w./-]*\w\.md\b|\b[A-Z]{5,}(?= (?:sections? \d|names |says ))", path.read_text()
        )
    ]

    assert [] == [
        (path, name) for path, name in named if not (files & {name, f"{name}.md"} or (path.parent / name).exists())
    ]
