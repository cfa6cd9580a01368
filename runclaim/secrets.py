"""
What looks like a secret: published token formats, private keys, URLs with a password, Authorization headers.

One table of rules serves both uses: `find_secret` refuses in inputs, `redact` cleans errors and logs. A rule asks for
less than a whole token, so that one which was cut is found too. Every pattern is linear on hostile text: it
begins with a literal, and what it repeats without a bound cannot begin it again or is consumed with the match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from runclaim.errors import InputError

#: Shorter than any secret of the table; most names of fields and many values are not even looked at.
_SHORTEST: Final = 8
_RUN: Final = re.compile(r"[A-Za-z0-9_-]*")
#: A token begins here: nothing of a word stands before it, unless it is the escape of a repr or of JSON.
_START: Final = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))"
_PEM: Final = r"[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
#: What documents write where a password goes.
_PLACEHOLDER: Final = r"(?:\*+|\$\{?\w+\}?|\{[\w.]*\}|\[+\w*\]+|%s|%\(\w+\)s)@"
#: A port and the end of the authority: what comes before a later `@` is no password.
_PORT: Final = r"\d{1,5}[?#,;'&)\]}\\]"


@dataclass(frozen=True, slots=True)
class _Rule:
    """A kind of secret; the pattern's group `it`, or the whole match, is what nobody may read."""

    kind: str
    #: The pattern can match only where one of these stands: a search for them is far cheaper.
    hints: tuple[str, ...]
    pattern: re.Pattern[str]

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        group = "it" if "it" in self.pattern.groupindex else 0
        return [(*found.span(group), self.kind) for found in self.pattern.finditer(text)]


def _rule(kind: str, hints: str, pattern: str) -> _Rule:
    return _Rule(kind, tuple(hints.split()), re.compile(pattern))


_RULES: Final = (
    # docs.github.com, "About authentication to GitHub": GitHub's token formats
    _rule("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9_]{20,}"),
    _rule("GitHub token", "github_pat_", r"github_pat_[A-Za-z0-9_]{20,}"),
    # docs.gitlab.com/security/tokens: token prefixes
    _rule("GitLab token", "glpat- gldt- glrt- glptt-", r"gl(?:pat|dt|rt|ptt)-[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]+)*"),
    # docs.slack.dev/authentication/tokens; an incoming webhook's URL is its own credential
    _rule("Slack token", "xox xapp-", r"(?:xox[abceprs](?:\.xox[bp])?|xapp)-[A-Za-z0-9-]{10,}"),
    _rule("Slack token", "hooks.slack.com", r"hooks\.slack\.com/services/(?P<it>[A-Za-z0-9_/-]{20,})"),
    # docs.aws.amazon.com/IAM: unique identifiers, prefixes of access key ids
    _rule("AWS key id", "AKIA ASIA", _START + r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9_-])"),
    # docs.cloud.google.com/docs/authentication/api-keys: AIza and 35 more
    _rule("Google API key", "AIza", _START + r"AIza[A-Za-z0-9_-]{35,}"),
    # platform.openai.com and docs.anthropic.com: sk-…, sk-proj-…, sk-svcacct-…, sk-admin-…, sk-ant-…
    _rule("API key", "sk-", _START + r"sk-(?:(?:ant|proj|svcacct|admin)-[A-Za-z0-9_-]{16,}|[A-Za-z0-9]{20,})"),
    # docs.stripe.com/keys: secret and restricted keys, also those for tests
    _rule("Stripe key", "k_live_ k_test_", r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    # github.blog, "Announcing npm's new access token format"
    _rule("npm token", "npm_", _START + r"npm_[A-Za-z0-9]{30,}"),
    # pypi.org/help/#apitoken: a macaroon, whose first bytes are always the same
    _rule("PyPI token", "pypi-AgE", r"pypi-AgE[A-Za-z0-9_-]{16,}"),
    # standardwebhooks.com, specification: symmetric secrets and private signing keys
    _rule("webhook secret", "whsec_ whsk_", r"whs(?:ec|k)_[A-Za-z0-9+/=]{20,}"),
    # RFC 7519 in the compact form of RFC 7515: two base64url JSON objects, which begin `{"`, and a signature
    _rule("JWT", "eyJ", _START + r"eyJ[A-Za-z0-9_-]{4,}\.eyJ[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*"),
    # RFC 7468 and RFC 9580 (armor); from the header to its end, or to the end of a text that was cut
    _rule(
        "private key",
        "PRIVATE",
        rf"-----BEGIN {_PEM}(?=\s{{0,4}}(?:[\n\\]|[A-Za-z0-9+/=]{{16}}|\Z))"
        rf"(?:[^-]++|-(?!----END ))*+(?:-----END {_PEM})?",
    ),
    # RFC 3986, 3.2.1: userinfo. GitHub's tokens are sent as the user too, so all of it goes
    _rule(
        "URL with a password",
        "://",
        rf"(?<=[A-Za-z0-9])://(?P<it>[^\s/:@\"<>?#]*:(?!{_PORT})(?!{_PLACEHOLDER})[^\s/\"<>]+)@",
    ),
    # RFC 7617 (Basic), RFC 6750 (Bearer); as a header, a repr and JSON write it
    _rule(
        "Authorization header",
        "uthorization UTHORIZATION",
        r"(?i:authorization)\\?['\"]?\s{0,3}[:=,]\s{0,3}b?\\?['\"]?"
        r"(?i:bearer|basic|token|apikey)\s{1,3}(?P<it>[A-Za-z0-9._~+/=-]{8,})",
    ),
    _rule("bearer token", "earer EARER", r"(?i:bearer)\s{1,3}(?P<it>[A-Za-z0-9._~+/=-]{20,})"),
)

#: In one flat loop: most texts hold none of these, and every value of every input is asked.
_HINTS: Final = tuple((hint, rule) for rule in _RULES for hint in rule.hints)

#: A place inside JSON data: the place around it, and the name or number in that.
_Place = tuple[Any, str | int]


def find_secret(value: Any) -> tuple[str, str] | None:
    """
    The path (`a.b[1]`) and the kind of the first secret in JSON data, or `None`; names of fields are looked at too.

    The path is empty for the value itself, and ends before a name that is a secret: it never holds one.
    """
    waiting: list[tuple[_Place | None, Any]] = [(None, value)]
    while waiting:
        place, found = waiting.pop()
        if isinstance(found, str):
            if kind := _kind(_headed(place, found)):
                return _path(place), kind
        elif isinstance(found, dict):
            if kind := next(filter(None, (_kind(name) for name in found if isinstance(name, str))), None):
                return _path(place), kind
            waiting.extend(((place, name), item) for name, item in reversed(found.items()))
        elif isinstance(found, list | tuple):
            waiting.extend(((place, index), found[index]) for index in reversed(range(len(found))))
    return None


def refuse_secrets(field: str, value: Any) -> None:
    """
    Raise for the first secret in JSON data that somebody hands over to be stored.

    Raises: InputError that names its path, or `field` for the value itself; never the secret.
    """
    if found := find_secret(value):
        path, kind = found
        article = "an" if kind[0] in "AO" else "a"
        raise InputError(
            path or field,
            f"looks like {article} {kind}; pass a reference such as secret:env:NAME and read it with ctx.secret,"
            " or declare the flow with allow_secrets=True",
        )


def redact(text: str) -> str:
    """`text` with `[redacted: kind]` for what looks like a secret, and for all of the word it stands in."""
    hinted = dict.fromkeys(rule for hint, rule in _HINTS if hint in text)
    spans = sorted(span for rule in hinted for span in rule.spans(text))
    pieces, done = [], 0
    for start, end, kind in spans:
        if end <= done:
            continue
        if start >= done:
            # Whole words: what is left next to a mark can neither be the rest of a token nor become a new one.
            while start > done and _is_word(text[start - 1]):
                start -= 1  # noqa: PLW2901
            pieces += [text[done:start], f"[redacted: {kind}]"]
        done = _end_of_word(text, end)
    return "".join([*pieces, text[done:]])


def veiled(value: Any) -> Any:
    """JSON data for an error's text: itself, or a mark when there is a secret in it."""
    found = find_secret(value)
    return value if found is None else f"[redacted: {found[1]}]"


def _kind(text: str) -> str | None:
    if len(text) < _SHORTEST:
        return None
    for hint, rule in _HINTS:
        if hint in text and rule.pattern.search(text):
            return rule.kind
    return None


def _headed(place: _Place | None, text: str) -> str:
    """The text as a header, where its field says that it is one."""
    name = place[1] if place else ""
    return f"{name}: {text}" if isinstance(name, str) and name.lower().endswith("authorization") else text


def _path(place: _Place | None) -> str:
    steps: list[str] = []
    while place is not None:
        place, step = place
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(reversed(steps)).lstrip(".")


def _is_word(letter: str) -> bool:
    return _RUN.fullmatch(letter) is not None


def _end_of_word(text: str, end: int) -> int:
    found = _RUN.match(text, end)
    return end if found is None else found.end()
