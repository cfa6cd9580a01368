"""The documentation for language models, as llmstxt.org describes it: the list of pages, and all in one file."""

from __future__ import annotations

from website.contents import INDEX, introduction, sections


def short() -> str:
    """llms.txt: every page with its title, its path from the repository's root and one sentence."""
    title, sentence, rest = introduction()
    lists = [
        f"## {section.title}\n\n"
        + "\n".join(f"- [{page.title}]({page.place.as_posix()}): {page.sentence}" for page in section.pages)
        for section in sections()
    ]
    return "\n\n".join([f"# {title}", f"> {sentence}", rest, *lists]) + "\n"


def full() -> str:
    """llms-full.txt: the text of every page, in the order of the index."""
    pages = [page.path for section in sections() for page in section.pages]
    return "\n\n".join(path.read_text().strip() for path in (INDEX, *pages)) + "\n"
