"""Texts for users are plain English: pages, help, the API's document and messages use none of the banned phrases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.phrases import (
    BANNED,
    MODULES,
    PAGES,
    api_texts,
    docstrings,
    every_help_text,
    messages,
    sentences,
)
from website.contents import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: One sentence for each banned phrase; most of them were once in the product.
TRANSLATED = (
    "A token is needed, and the one given is none",
    "sender is no field of the input",
    "posts one comment a finding",
    "one run per key, also after it was purged",
    "it has to be longer than nothing",
    "With --wait: at most so long, then exit 8.",
    "Twice is as good as once.",
    "what the forge did stands in a table of its own",
    "A run goes on with the phase that failed",
    "whoever inserts it makes the run",
    "Once its cause is mended",
    "enqueue it anew",
    "Start it as ever",
    "a deploy burns no attempt",
    "DESIGN refuses it",
)


def uses(texts: Iterable[tuple[str, str]]) -> list[str]:
    """Each use of a banned phrase, with its place and what to write in its place."""
    return [
        f"{where}: {text!r:.160} (instead: {phrase.instead})"
        for where, text in texts
        for phrase in BANNED
        if phrase.found_in(text)
    ]


@pytest.mark.parametrize("sentence", TRANSLATED)
def test_a_sentence_of_translated_english_is_noticed_by_one_phrase(sentence: str):
    """INVARIANT: no banned phrase comes back. Breaks when a phrase is taken off the list, or no longer matches."""
    assert 1 == len(uses([("here", sentence)]))


def test_every_banned_phrase_has_its_sentence():
    unused = [phrase.pattern for phrase in BANNED if not any(phrase.found_in(sentence) for sentence in TRANSLATED)]

    assert [] == unused


@pytest.mark.parametrize(
    "text",
    [
        "there is no run of this key",
        "the claim is no longer current",
        "so many that none is left",
        "`x` stands for a secret",
        "a stand-in for the forge",
        "at most once a second",
    ],
)
def test_what_is_plain_english_is_not_banned(text: str):
    assert [] == uses([("here", text)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_in_plain_english(page: Path):
    assert [] == uses((page.name, sentence) for sentence in sentences(page))


def test_the_help_is_in_plain_english():
    texts = every_help_text()

    assert any("--wait" in text for _, text in texts)
    assert [] == uses(texts)


def test_the_document_of_the_api_is_in_plain_english():
    texts = api_texts()

    assert any("bearer token" in text for _, text in texts)
    assert [] == uses(texts)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_the_messages_and_docstrings_of_a_module_are_in_plain_english(module: Path):
    assert [] == uses(messages(module) + docstrings(module))
