"""
The formats of secrets: one rule each, with the page that publishes it.

Every pattern is linear on hostile text: it begins with a literal, and what it repeats without a bound cannot begin it
again or is consumed with the match. A format that is published and missing here belongs here, with a line in
tests/unit/test_secrets.py and in docs/secrets.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: A token begins here: no part of a word is before it, unless it is the escape of a repr or of JSON.
_START: Final = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
#: The same for what is followed by words without end: it may begin inside none that was looked at already.
_ALONE: Final = r"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))"
_PEM: Final = r"[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
#: What documents write where a password goes.
_PLACEHOLDER: Final = r"(?:\*+|\$\{?\w+\}?|\{[\w.]*\}|\[+\w*\]+|%s|%\(\w+\)s)"
#: A port and the end of the authority: what comes before a later `@` is not a password.
_PORT: Final = r"\d{1,5}[?#,;'&)\]}\\]"
#: What follows `name:version@` in a digest of an image or in a coordinate of a package.
_PIN: Final = r"(?:sha(?:256|512):|\d+(?:\.\d+){0,2}(?![\w.:-]))"


def varied(text: str) -> bool:
    """
    Whether the letters and digits change their kind as often as random ones do.

    Of random base64 two neighbours in three are of different kinds (capital, small, digit), of random hexadecimal
    digits one in two; of words, names and dates one in ten.
    """
    kinds = [2 if each.isdigit() else each.isupper() for each in text if each.isascii() and each.isalnum()]
    changes = sum(one != other for one, other in pairwise(kinds))
    return 4 * changes >= len(kinds) - 1


def _numbered(text: str) -> bool:
    return any(each.isdigit() for each in text)


def _no_example(text: str) -> bool:
    return not text.endswith("EXAMPLE")


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of secret; the pattern's group `it`, or the whole match, is the secret."""

    kind: str
    #: The pattern can match only where one of these occurs: a search for them is far cheaper.
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    #: Of a match that may be ordinary words: whether it is a secret. Asked where an input would be refused.
    is_secret: Callable[[str], bool] | None = None

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """Where a text may have such a secret, and the kind."""
        return [(*found.span(self._group), self.kind) for found in self.pattern.finditer(text)]

    def is_in(self, text: str) -> bool:
        """Whether a text has such a secret."""
        if self.is_secret is None:
            return self.pattern.search(text) is not None
        return any(self.is_secret(found[self._group]) for found in self.pattern.finditer(text))

    @property
    def _group(self) -> str | int:
        return "it" if "it" in self.pattern.groupindex else 0


def _rule(kind: str, hints: str, pattern: str, is_secret: Callable[[str], bool] | None = None) -> Rule:
    return Rule(kind, tuple(hints.split()), re.compile(pattern), is_secret)


RULES: Final = (
    # runclaim.ledger.doors.tokens
    _rule("runclaim token", "rc_", _START + r"rc_[0-9a-f]{8,12}_[0-9a-f]{16,}"),
    # docs.github.com, "About authentication to GitHub": GitHub's token formats
    _rule("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9_]{20,}", varied),
    _rule("GitHub token", "github_pat_", r"github_pat_[A-Za-z0-9_]{20,}"),
    # docs.gitlab.com/security/tokens: token prefixes
    _rule(
        "GitLab token",
        "glpat- gldt- glrt- glptt- glcbt- gloas- glsoat- glft- glagent- glimt- glffct- glwt-",
        r"gl(?:pat|dt|rt|ptt|cbt|oas|soat|ft|agent|imt|ffct|wt)-[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]+)*",
        varied,
    ),
    _rule("GitLab token", "GR1348941", _START + r"GR1348941[A-Za-z0-9_-]{16,}"),
    # docs.slack.dev/authentication/tokens; an incoming webhook's URL is its own credential
    _rule("Slack token", "xox xapp- xwfp-", r"(?:xox[abcdeprs](?:\.xox[bp])?|xapp|xwfp)-[A-Za-z0-9%-]{10,}", _numbered),
    _rule(
        "Slack token",
        "hooks.slack.com",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<it>[A-Za-z0-9_/-]{20,})",
    ),
    # docs.aws.amazon.com/IAM: unique identifiers, prefixes of access key ids; its own examples end in EXAMPLE
    _rule("AWS key id", "AKIA ASIA", _START + r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9_-])", _no_example),
    # docs.aws.amazon.com, "Signature Version 4": as a header, and in a presigned URL
    _rule("AWS signature", "Signature=", r"Signature=(?P<it>[0-9a-f]{64})"),
    # learn.microsoft.com, "Create a service SAS"
    _rule("Azure signature", "sig=", r"[?&;]sig=(?P<it>[A-Za-z0-9%+/=]{20,})", varied),
    # docs.cloud.google.com/docs/authentication/api-keys: AIza and 35 more; OAuth's client secrets and access tokens
    _rule("Google API key", "AIza", _START + r"AIza[A-Za-z0-9_-]{35,}"),
    _rule("Google client secret", "GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{20,}"),
    _rule("Google access token", "ya29.", _START + r"ya29\.[A-Za-z0-9_-]{20,}"),
    # platform.openai.com and docs.anthropic.com: sk-…, sk-proj-…, sk-svcacct-…, sk-admin-…, sk-ant-…
    _rule(
        "API key",
        "sk-",
        _START + r"sk-(?:(?:ant|proj|svcacct|admin)-[A-Za-z0-9_-]{16,}|[A-Za-z0-9]{20,})",
        varied,
    ),
    # console.groq.com, grafana.com (service accounts), huggingface.co (user access tokens), databricks.com
    _rule("API key", "gsk_", _START + r"gsk_[A-Za-z0-9]{30,}"),
    _rule("Grafana token", "glsa_", r"glsa_[A-Za-z0-9]{20,}_[0-9a-f]{8}"),
    _rule("Hugging Face token", "hf_", _START + r"hf_[A-Za-z0-9]{30,}", varied),
    _rule("Databricks token", "dapi", _START + r"dapi[0-9a-f]{32}(?:-\d)?"),
    # docs.digitalocean.com, docs.docker.com, developer.hashicorp.com/vault, sendgrid.com, shopify.dev, atlassian.com
    _rule("DigitalOcean token", "dop_v1_ doo_v1_ dor_v1_", r"do[opr]_v1_[0-9a-f]{40,}"),
    _rule("Docker token", "dckr_pat_ dckr_oat_", r"dckr_[po]at_[A-Za-z0-9_-]{20,}"),
    _rule("Vault token", "hvs. hvb. hvr.", _START + r"hv[sbr]\.[A-Za-z0-9_-]{20,}"),
    _rule("SendGrid key", "SG.", _START + r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    _rule("Shopify token", "shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    _rule("Atlassian token", "ATATT3", _START + r"ATATT3[A-Za-z0-9_=-]{40,}"),
    # docs.stripe.com/keys: secret and restricted keys, including those for tests
    _rule("Stripe key", "k_live_ k_test_", r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}", varied),
    # github.blog, "Announcing npm's new access token format"
    _rule("npm token", "npm_", _START + r"npm_[A-Za-z0-9]{30,}", varied),
    # pypi.org/help/#apitoken: a macaroon, whose first bytes are always the same
    _rule("PyPI token", "pypi-AgE", r"pypi-AgE[A-Za-z0-9_-]{16,}"),
    # standardwebhooks.com, specification: symmetric secrets and private signing keys
    _rule("webhook secret", "whsec_ whsk_", r"whs(?:ec|k)_[A-Za-z0-9+/=]{20,}"),
    # RFC 7519 in the compact form of RFC 7515: two base64url JSON objects, which begin `{"`, and a signature
    _rule("JWT", "eyJ", _ALONE + r"eyJ[A-Za-z0-9_-]{4,}\.eyJ[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*"),
    # RFC 7468 and RFC 9580 (armor); from the header to its end, or to the end of a text that was cut
    _rule(
        "private key",
        "PRIVATE",
        rf"-----BEGIN {_PEM}(?!(?:\s|\\n){{0,6}}(?:\.\.\.|…|<))"
        rf"(?=\s{{0,4}}(?:[\n\\]|[A-Za-z0-9+/=]{{16}}|\Z))(?:[^-]++|-(?!----END ))*+(?:-----END {_PEM})?",
    ),
    # RFC 3986, 3.2.1: userinfo. GitHub's tokens are sent as the user too, so all of it goes
    _rule(
        "URL with a password",
        "://",
        rf"(?<=[A-Za-z0-9])://(?P<it>[^\s/:@\"<>?#]*:(?!{_PORT})(?!{_PLACEHOLDER}@)[^\s/\"<>]+)@(?!{_PIN})",
    ),
    # postgresql.org, "Connection URIs" and "Keyword/Value Connection Strings"; ADO and JDBC write it with semicolons
    _rule(
        "connection string with a password",
        "assword= ASSWORD= pwd= Pwd= PWD=",
        rf"(?:[?&;]\s?|(?:host|user|dbname|port)=[^\s=]{{1,100}}\s)(?i:password|pwd)="
        rf"(?!{_PLACEHOLDER}(?:[\s&;]|\Z)|\[redacted)(?P<it>[^\s&;'\"<>]{{3,}})",
    ),
    # RFC 6750, 2.3, and what APIs take in its place
    _rule(
        "token in a URL",
        "token= api_key= apikey=",
        r"[?&](?:access_token|auth_token|private_token|token|api_key|apikey)=(?P<it>[A-Za-z0-9._~%+/=-]{16,})",
        varied,
    ),
    # RFC 7617 (Basic), RFC 6750 (Bearer), or a token alone; as a header, a repr and JSON write it
    _rule(
        "Authorization header",
        "uthorization UTHORIZATION",
        r"(?i:authorization)\\?['\"]?\s{0,8}[:=,]\s{0,8}b?\\?['\"]?"
        r"(?:(?i:bearer|basic|token|apikey)\s{1,8}(?P<it>[A-Za-z0-9._~+/=-]{8,}))",
        varied,
    ),
    _rule(
        "Authorization header",
        "uthorization UTHORIZATION",
        r"(?i:authorization)\\?['\"]?\s{0,8}[:=,]\s{0,8}b?\\?['\"]?(?P<it>[A-Za-z0-9._~+/=-]{16,})",
        varied,
    ),
    # RFC 7616 (Digest): what proves the password
    _rule("Authorization header", "response=", r"(?i:digest)\s[^\r\n]{0,400}?response=\\?\"?(?P<it>[0-9a-f]{32,})"),
    _rule("bearer token", "earer EARER", r"(?i:bearer)\s{1,8}(?P<it>[A-Za-z0-9._~+/=-]{20,})", varied),
)
