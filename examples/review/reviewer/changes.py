"""
What git knows: pairs of neighbouring commits, the Python files that changed between them, and a file's content.

Git is only read, through its plumbing, so no setting, hook or filter of the repository has a say in the output.
What a user can put right is a `NotReviewable`, whose message says how.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

MOST_FILES = 25
#: Regular files; a link or a submodule named *.py holds no Python.
_FILE_MODES = ("100644", "100755")
#: Set inside a git hook; they would send git to another repository than the one that was named.
_FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
_HERE = Path(__file__).resolve().parents[3]


class NotReviewable(Exception):
    """There is nothing here that could be reviewed; the message says what to do."""


@dataclass(frozen=True)
class Changes:
    """What changed between two commits: how many files at all, and Python files that are there afterwards."""

    files: int
    #: At most `MOST_FILES`: a phase's result is data, not an archive.
    python: list[str]


@dataclass(frozen=True)
class History:
    """Commit pairs `(base, head)`, the newest first, and which these are in words."""

    repo: str
    pairs: list[tuple[str, str]]
    which: str


def history(path: str | Path, *, most: int) -> History:
    """
    The last `most` pairs of the checked-out branch; a first commit is paired with the empty tree.

    Raises: NotReviewable.
    """
    repo = _repository(path)
    if not _said(repo, "rev-parse", "--quiet", "--verify", "HEAD", ok=(0, 1)):
        raise NotReviewable(f"{repo} has no commit yet. Commit something, or name another repository: REPO=path")
    lines = _said(repo, "rev-list", "--first-parent", "--parents", f"-n{most}", "HEAD").splitlines()
    commits = [line.split() for line in lines]
    shallow = _said(repo, "rev-parse", "--is-shallow-repository") == "true"
    if shallow and len(commits) > 1:
        # Where a shallow clone ends, a commit only looks like a first one.
        commits = [found for found in commits if len(found) > 1]
    empty = _said(repo, "hash-object", "-t", "tree", os.devnull)
    pairs = [(found[1] if len(found) > 1 else empty, found[0]) for found in commits]
    return History(repo, pairs, _which(len(pairs), most, shallow=shallow))


def _which(found: int, most: int, *, shallow: bool) -> str:
    pairs = f"{found} pair{'' if found == 1 else 's'}"
    if found >= most:
        return f"the last {pairs}"
    if shallow:
        return f"{pairs}, all that this shallow clone has (git fetch --unshallow gets the rest)"
    return f"{pairs}, the whole history"


def changes(repo: str, base: str, head: str) -> Changes:
    """What changed from `base` to `head`."""
    # Each entry is ":old-mode new-mode old-blob new-blob status" and a path, both ended by a zero byte.
    fields = _git(repo, "diff-tree", "-r", "-z", "--no-renames", base, head).split(b"\0")[:-1]
    entries = list(zip(fields[::2], fields[1::2], strict=True))
    python = [
        path.decode()
        for entry, path in entries
        if path.endswith(b".py") and entry.split()[1].decode() in _FILE_MODES and _is_text(path)
    ]
    return Changes(len(entries), python[:MOST_FILES])


@dataclass(frozen=True)
class Commit:
    """Who made a commit, when (ISO 8601), and its first line."""

    sha: str
    author: str
    email: str
    at: str
    title: str


def commit(repo: str, sha: str) -> Commit:
    """The commit as git tells it."""
    fields = _said(repo, "show", "--no-patch", "--no-show-signature", "--format=%an%x00%ae%x00%cI%x00%s", sha)
    return Commit(sha, *fields.split("\0"))


def lines_changed(repo: str, base: str, head: str) -> tuple[int, int, int]:
    """How many lines came, how many went, and in how many files; a binary file has no lines."""
    stat = _said(repo, "diff-tree", "-r", "--numstat", "--no-renames", base, head).splitlines()
    counts = [[int(count) if count.isdecimal() else 0 for count in line.split("\t")[:2]] for line in stat]
    return sum(added for added, _ in counts), sum(deleted for _, deleted in counts), len(counts)


def content(repo: str, commit: str, path: str) -> bytes:
    """The file as it is at `commit`."""
    return _git(repo, "cat-file", "blob", f"{commit}:{path}")


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False  # no JSON, so no finding, could name it
    return True


def _repository(path: str | Path) -> str:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise NotReviewable(f"{folder} is no folder. Name a git repository: REPO=path")
    top = _said(str(folder), "rev-parse", "--show-toplevel", ok=(0, 128))
    if not top and _said(str(folder), "rev-parse", "--is-bare-repository", ok=(0, 128)) == "true":
        top = str(folder.resolve())
    if not top:
        raise NotReviewable(f"{folder} is no git repository. Clone one, and name it: REPO=path")
    return top


def _said(repo: str, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
    return _git(repo, *arguments, ok=ok).decode(errors="replace").strip()


def _git(repo: str, *arguments: str, ok: tuple[int, ...] = (0,)) -> bytes:
    # Git refuses the checkout of another user, whose settings could run commands. This very one's code runs already.
    trust = ["-c", f"safe.directory={_HERE}"] if Path(repo).resolve() == _HERE else []
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *trust, "-C", repo, *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )  # fmt: skip
    except FileNotFoundError:
        raise NotReviewable("git is not installed. Get it, for example: sudo apt-get install git") from None
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode not in ok or "dubious ownership" in said:
        raise NotReviewable(f"git {arguments[0]} failed in {repo}: {said or f'status {done.returncode}'}")
    return done.stdout
