"""The witness of the comments: it finds what is lost, doubled, and not asked for, and believes nobody's marker."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from forge.store import Store
from reviewer import record
from reviewer.posting import visible
from reviewer.work import Comment
from sqlalchemy.orm import Session
from trial.comments import Comments, Said, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOLE = Comment("demo/app", 7, "well done")
ON_A_LINE = Comment("demo/app", 7, "unused", "app.py", 3, "b2")
KEY, OVERTAKEN = "demo/app:pr-7:base-a1:head-b2", "demo/app:pr-7:base-a0:head-b1"


class Round:
    """A forge's file and a table of plans, to be brought into any state."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "forge.db"
        self.store = Store(self._file)
        self._engine = record.engine(f"sqlite:///{folder / 'rows.db'}")
        record.metadata.create_all(self._engine)

    def plan(self, comment: Comment, key: str = KEY) -> None:
        with Session(self._engine) as session, session.begin():
            record.planned(session, record.review_comments, key, comment)

    def post(self, comment: Comment, marker: str = "run:deliver:0") -> None:
        kind = "pulls" if comment.path else "issues"
        body = f"{comment.body}\n\n<!-- runclaim:{marker} -->"
        place: dict[str, Any] = {"path": comment.path, "line": comment.line, "commit_id": comment.commit_id}
        kept = {"repo": comment.repo, "number": comment.number, "kind": kind, "body": body} | place
        path = f"/repos/{comment.repo}/{kind}/{comment.number}/comments"
        self.store.post(path, json.dumps({"body": body} | (place if comment.path else {})), kept)

    @property
    def witness(self) -> Comments:
        return Comments(
            record.review_comments, engine=self._engine, folder=self._folder, file=self._file, repo="demo/app"
        )

    @property
    def tally(self) -> Tally:
        return self.witness.tally([KEY])


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Round]:
    made = Round(tmp_path)
    yield made
    made.store.close()


def test_comments_that_are_there_once_are_neither_lost_nor_doubled(played: Round):
    for comment in (WHOLE, ON_A_LINE):
        played.plan(comment)
        played.post(comment)

    found = played.tally
    assert ([], [], []) == (found.lost, found.doubled, found.strange)
    assert (2, 2, 2) == (found.planned, found.posts, found.present)
    assert set() == played.witness.unposted()


def test_a_planned_comment_that_is_nowhere_is_lost(played: Round):
    played.plan(ON_A_LINE)

    assert [Said(7, "unused", "app.py", 3, "b2")] == played.tally.lost
    assert {KEY} == played.witness.unposted()


def test_two_comments_that_read_the_same_are_doubled_whatever_their_markers(played: Round):
    """INVARIANT: doubled is what a reader sees twice. Breaks if the witness compares markers, which a worker wrote."""
    played.plan(WHOLE)
    played.post(WHOLE, "run:compound:0")
    played.post(WHOLE, "another-run:compound:0")

    assert [Said(7, "well done", None, None, None)] == played.tally.doubled


def test_the_same_words_on_two_lines_are_two_comments(played: Round):
    played.post(ON_A_LINE)
    played.post(Comment("demo/app", 7, "unused", "app.py", 4, "b2"))

    assert [] == played.tally.doubled


def test_a_comment_that_nobody_planned_is_found(played: Round):
    played.post(WHOLE)

    assert [Said(7, "well done", None, None, None)] == played.tally.strange


def test_a_comment_of_an_overtaken_review_may_be_missing_but_not_doubled(played: Round):
    played.plan(WHOLE, OVERTAKEN)
    played.plan(ON_A_LINE, OVERTAKEN)
    played.post(ON_A_LINE)
    played.post(ON_A_LINE)

    found = played.tally
    assert ([], [Said(7, "well done", None, None, None)]) == (found.lost, found.dropped)
    assert [Said(7, "unused", "app.py", 3, "b2")] == found.doubled


def test_a_comment_that_the_forge_refused_is_not_lost(played: Round):
    played.store.set_plan({"first": ["422"]})
    played.plan(ON_A_LINE)
    played.post(ON_A_LINE)

    assert ([], [Said(7, "unused", "app.py", 3, "b2")]) == (played.tally.lost, played.tally.refused)


def test_posts_that_were_applied_and_answered_badly_are_counted(played: Round):
    played.store.set_plan({"first": ["lost reply", "500 after applying", "502 before applying", "slow"]})
    for number in range(5):
        played.post(Comment("demo/app", number, "well done"))

    assert (5, 3) == (played.tally.posts, played.tally.unanswered)


def test_comments_of_another_repository_are_not_counted(played: Round):
    played.post(Comment("chain/app", 7, "well done"))

    assert (0, 0) == (played.tally.present, played.tally.posts)


def test_a_send_is_under_way_until_its_sender_comes_back(played: Round, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("REVIEW_FOLDER", str(tmp_path))
    with record.sending(record.review_comments):
        during = played.witness.sending()

    assert [os.getpid()] == [send.pid for send in during]
    assert [] == played.witness.sending()


def test_a_body_reads_the_same_with_and_without_its_marker():
    assert "two\n\nlines" == visible("two\n\nlines\n\n<!-- runclaim:run:deliver:0 -->") == visible("two\n\nlines")
