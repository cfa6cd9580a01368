"""
GitHub's `pull_request` payloads, made from the commits of a local clone.

The fields are those of docs.github.com, "Webhook events and payloads", less the templates of links that no review
asks for. What git does not know (numbers, names of accounts) is made up, and the same each time.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

from reviewer.changes import commit, lines_changed

if TYPE_CHECKING:
    from reviewer.work import PullRequest

Action = Literal["opened", "synchronize", "reopened"]

_SITE = "https://forge.example"
_BRANCH = "main"


def pull_request(action: Action, pull: PullRequest, *, before: str | None = None) -> dict[str, Any]:
    """The payload of an event about `pull`; `before` is the head that a push replaced."""
    pushed = {"before": before, "after": pull.head} if action == "synchronize" else {}
    return {
        "action": action,
        "number": pull.number,
        "pull_request": _pull(pull),
        **pushed,
        "repository": _repository(pull.repo),
        "sender": _user(commit(pull.clone, pull.head).email),
        "installation": {"id": _id(pull.repo, "installation"), "node_id": _node(pull.repo, "installation")},
    }


def _pull(pull: PullRequest) -> dict[str, Any]:
    api, page = f"{_SITE}/api/repos/{pull.repo}", f"{_SITE}/{pull.repo}/pull/{pull.number}"
    change = commit(pull.clone, pull.head)
    added, deleted, files = lines_changed(pull.clone, pull.base, pull.head)
    author = _user(change.email)
    links = {
        "url": f"{api}/pulls/{pull.number}",
        "html_url": page,
        "diff_url": f"{page}.diff",
        "patch_url": f"{page}.patch",
        "issue_url": f"{api}/issues/{pull.number}",
        "commits_url": f"{api}/pulls/{pull.number}/commits",
        "review_comments_url": f"{api}/pulls/{pull.number}/comments",
        "comments_url": f"{api}/issues/{pull.number}/comments",
        "statuses_url": f"{api}/statuses/{pull.head}",
    }
    state = {
        "state": "open",
        "locked": False,
        "draft": False,
        "merged": False,
        "mergeable": None,
        "mergeable_state": "unknown",
        "merge_commit_sha": None,
        "auto_merge": None,
        "milestone": None,
        "assignee": None,
        "assignees": [],
        "requested_reviewers": [],
        "requested_teams": [],
        "labels": [],
        "active_lock_reason": None,
        "author_association": "CONTRIBUTOR",
        "maintainer_can_modify": False,
    }
    times = {"created_at": change.at, "updated_at": change.at, "closed_at": None, "merged_at": None}
    counts = {"commits": 1, "additions": added, "deletions": deleted, "changed_files": files}
    return {
        "id": _id(pull.repo, "pull", str(pull.number)),
        "node_id": _node(pull.repo, "pull", str(pull.number)),
        "number": pull.number,
        "title": change.title,
        "body": None,
        "user": author,
        **links,
        **state,
        **times,
        "head": _side(pull, f"change-{pull.number}", pull.head, author),
        "base": _side(pull, _BRANCH, pull.base, _user(pull.repo.partition("/")[0])),
        "_links": {
            "self": {"href": links["url"]},
            "html": {"href": page},
            "issue": {"href": links["issue_url"]},
            "comments": {"href": links["comments_url"]},
            "review_comments": {"href": links["review_comments_url"]},
            "commits": {"href": links["commits_url"]},
            "statuses": {"href": links["statuses_url"]},
        },
        "comments": 0,
        "review_comments": 0,
        **counts,
    }


def _side(pull: PullRequest, ref: str, sha: str, user: dict[str, Any]) -> dict[str, Any]:
    label = f"{pull.repo.partition('/')[0]}:{ref}"
    return {"label": label, "ref": ref, "sha": sha, "user": user, "repo": _repository(pull.repo)}


def _repository(full_name: str) -> dict[str, Any]:
    owner, _, name = full_name.partition("/")
    page = f"{_SITE}/{full_name}"
    return {
        "id": _id(full_name),
        "node_id": _node(full_name),
        "name": name,
        "full_name": full_name,
        "private": False,
        "owner": _user(owner),
        "html_url": page,
        "description": None,
        "fork": False,
        "url": f"{_SITE}/api/repos/{full_name}",
        "clone_url": f"{page}.git",
        "ssh_url": f"git@forge.example:{full_name}.git",
        "git_url": f"git://forge.example/{full_name}.git",
        "default_branch": _BRANCH,
        "language": "Python",
        "archived": False,
        "disabled": False,
        "visibility": "public",
        "forks_count": 0,
        "open_issues_count": 1,
        "stargazers_count": 0,
        "watchers_count": 0,
    }


def _user(who: str) -> dict[str, Any]:
    login = "".join(c if c.isalnum() else "-" for c in who.partition("@")[0]).strip("-") or "ghost"
    page = f"{_SITE}/{login}"
    return {
        "login": login,
        "id": _id(login),
        "node_id": _node(login),
        "avatar_url": "",
        "html_url": page,
        "url": f"{_SITE}/api/users/{login}",
        "type": "User",
        "site_admin": False,
    }


def _id(*of: str) -> int:
    return int.from_bytes(hashlib.sha256("/".join(of).encode()).digest()[:4])


def _node(*of: str) -> str:
    return f"N_{hashlib.sha256('/'.join(of).encode()).hexdigest()[:16]}"
