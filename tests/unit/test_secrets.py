"""What looks like a secret and what does not, where it is found, and what is left of a text that held one."""

from __future__ import annotations

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runclaim.errors import InputError
from runclaim.secrets import find_secret, redact, refuse_secrets, veiled

# Put together here, so that no scanner of this repository takes them for real.
A36 = "Ab3" * 12
PEM = "PRIVATE KEY-----"
HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
CLAIMS = base64.urlsafe_b64encode(b'{"sub":"1234567890","admin":true}').decode().rstrip("=")

#: What is secret of it, and a text around it.
SECRETS = {
    "GitHub token": [
        *((f"gh{letter}_{A36}", "remote: {} is expired") for letter in "pousr"),
        (f"github_pat_{'1' * 22}_{'a1B' * 20}", "token={}"),
        (f"ghp_{A36[:22]}", "a token that was cut at forty characters: {}"),
    ],
    "runclaim token": [(f"rc_{'0a' * 6}_{'3f' * 32}", "token {} refused"), (f"rc_{'0a' * 6}_{'3f' * 9}", "cut: {}")],
    "GitLab token": [
        (f"glpat-{A36}.01.0a{'1' * 7}", "{}"),
        *(
            (f"gl{name}-{'x-Y_1' * 4}", "{}")
            for name in ("pat", "dt", "rt", "ptt", "cbt", "oas", "soat", "ft", "agent", "imt", "ffct", "wt")
        ),
        (f"GR1348941{'x-Y_1' * 4}", "{}"),
    ],
    "Slack token": [
        (f"xoxb-{'1' * 12}-{'2' * 12}-{'a' * 24}", "{}"),
        (f"xoxe.xoxp-1-{A36}", "{}"),
        (f"xapp-1-A0-{'1' * 12}-{'a' * 30}", "{}"),
        (f"xoxd-{A36}%2B{A36}", "d={};"),
        (f"xwfp-{'1' * 12}-{A36}", "{}"),
        *(
            (f"T00000000/B00000000/{'X' * 24}", f"https://hooks.slack.com/{kind}/{{}}")
            for kind in ("services", "workflows", "triggers")
        ),
    ],
    "AWS key id": [(f"AKIA{'IOSFODNN7EXAMPL2'}", "id {};"), (f"AKIA{'2' * 16}", "key_{}"), (f"ASIA{'2' * 16}", "{}")],
    "Google API key": [(f"AIza{'Sy-_9' * 7}", "?key={}&v=1")],
    "API key": [
        (f"sk-{A36}{A36}", "Incorrect API key provided: {}."),
        (f"sk-proj-{'a_B-1' * 10}", "{}"),
        (f"sk-ant-api03-{'a_B-1' * 18}", "x-api-key: {}"),
        (f"sk-{A36}", "key_{}"),
        (f"sk-{A36}", "key-{}"),
        (f"gsk_{A36}{A36[:16]}", "{}"),
    ],
    "AWS signature": [
        (
            "3f" * 32,
            "Authorization: AWS4-HMAC-SHA256 Credential=x/20261128/us-east-1/s3, SignedHeaders=host, Signature={}",
        ),
        ("3f" * 32, "https://b.s3.amazonaws.com/k?X-Amz-Expires=60&X-Amz-Signature={}"),
    ],
    "Azure signature": [(f"{A36}%2F3D%3D", "https://a.blob.core.windows.net/c?sv=2026-01-01&sig={}")],
    "Google client secret": [(f"GOCSPX-{'a_B-1' * 6}", "{}")],
    "Google access token": [(f"ya29.{'a_B-1' * 30}", "Bearer-less {}")],
    "Grafana token": [(f"glsa_{A36}_{'0a' * 4}", "{}")],
    "Hugging Face token": [(f"hf_{A36}", "HF_TOKEN={}")],
    "Databricks token": [(f"dapi{'0a' * 16}-2", "{}")],
    "DigitalOcean token": [(f"dop_v1_{'0a' * 32}", "{}")],
    "Docker token": [(f"dckr_pat_{'a_B-1' * 6}", "{}")],
    "Vault token": [(f"hvs.{'a_B-1' * 8}", "{}")],
    "SendGrid key": [(f"SG.{'a_B-1' * 4}.{'a_B-1' * 8}", "{}")],
    "Shopify token": [(f"shpat_{'0a' * 16}", "{}")],
    "Atlassian token": [(f"ATATT3{'xF_1-' * 20}=ABCDEF12", "{}")],
    "connection string with a password": [
        ("hunter2", "host=db user=app password={} dbname=x"),
        ("hunter2", "postgresql+psycopg://h/x?user=u&password={}"),
        ("hunter2", "Server=db;Database=x;Password={};"),
        ("hunter2", "jdbc:postgresql://h/x?pwd={}"),
    ],
    "token in a URL": [(f"{A36}", "https://x.example/feed?access_token={}"), (f"{A36}", "?v=1&api_key={}")],
    "Stripe key": [(f"sk_live_{'4e' * 12}", "{}"), (f"rk_live_{A36}", "{}"), (f"sk_test_{A36}", "{}")],
    "npm token": [(f"npm_{A36}", "//registry.npmjs.org/:_authToken={}")],
    "PyPI token": [(f"pypi-AgEIcHlwaS5vcmc{'Cj-_1' * 20}", "{}")],
    "webhook secret": [(f"whsec_{'MfKQ9r8G' * 4}", "{}"), (f"whsk_{'MfKQ9r8/' * 8}=", "{}")],
    "JWT": [(f"{HEADER}.{CLAIMS}.{'s-_S' * 10}", "Cookie: session={}; a=b"), (f"{HEADER}.{CLAIMS}.", "{}")],
    "private key": [
        (f"-----BEGIN {PEM}\n{'MIIEvQ+/' * 8}\n{'abcd' * 9}==\n-----END {PEM}", "key:\n{}\nend"),
        (f"-----BEGIN RSA {PEM}\nProc-Type: 4,ENCRYPTED\n\n{'MIIE' * 9}\n-----END RSA {PEM}", "{}"),
        (f"-----BEGIN OPENSSH {PEM}\\n{'b3Bl' * 9}\\n-----END OPENSSH {PEM}", "{{'key': '{}'}}"),
        (f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{'lQWG' * 9}\n-----END PGP PRIVATE KEY BLOCK-----", "{}"),
        (f"-----BEGIN EC {PEM} {'MHcC' * 9}", "a key in one line, cut: {}"),
        (f"-----BEGIN {PEM}", "{}"),
    ],
    "URL with a password": [
        ("app:hunter2", "postgresql+psycopg://{}@db.internal:5432/app"),
        (":hunter2", "redis://{}@localhost:6379/0"),
        ("me%40x.org:p%40ss#word", "amqp://{}@rabbit//"),
        ("user:pa@ss", "https://{}@host/path"),
        ("user:8080x", "https://{}@host/path"),
    ],
    "Authorization header": [
        ("c2VjcmV0", "Authorization: Bearer {}"),
        ("dXNlcjpwYXNzd29yZA==", "Proxy-Authorization: Basic {}\r\nHost: x"),
        ("dXNlcjpwYXNzd29yZA==", "{{'Authorization': 'Basic {}'}}"),
        ("c2VjcmV0LXRva2Vu", '{{\\"authorization\\": \\"token {}\\"}}'),
        ("c2VjcmV0LXRva2Vu", "Authorization:    Bearer     {}"),
        ("c2VjcmV0LXRva2VuMg", "Authorization: {}"),
        ("0a" * 16, 'Authorization: Digest username="me", realm="x", nonce="1", uri="/", response="{}"'),
    ],
    "bearer token": [("a1-B2._~+/" * 3 + "==", "curl -H 'bearer {}'")],
}
ALL = [(kind, secret, around) for kind, cases in SECRETS.items() for secret, around in cases]
IDS = [f"{kind}, {around.encode('unicode_escape').decode()[:40]}" for kind, _, around in ALL]


@pytest.mark.parametrize("kind, secret, around", ALL, ids=[f"{number} {name}" for number, name in enumerate(IDS)])
def test_a_secret_is_found_by_its_kind_and_nothing_of_it_is_left(kind: str, secret: str, around: str):
    text = around.format(secret)

    assert ("", kind) == find_secret(text)
    assert 1 == redact(text).count(f"[redacted: {kind}]")
    assert find_secret(redact(text)) is None
    assert not [piece for piece in pieces(secret) if piece in redact(text)]


def pieces(secret: str) -> set[str]:
    """Every eight letters that follow each other; for a short one, all of it."""
    return {secret[at : at + 8] for at in range(max(1, len(secret) - 7))} - {"PRIVATE "}


@pytest.mark.parametrize(
    "text",
    [
        "3f786850e387550fdab836ed7e6dc881de23001b",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        str(uuid.UUID(int=2**127 + 12345)),
        "ann@example.org",
        "Ann <ann.b+c@mail.example.org>, bob@x.de",
        "https://github.com/acme/app/pull/7/files#diff-0?w=1",
        "https://medium.com/@someone:else/about",
        "http://localhost:8000,me@example.org",
        "http://localhost:8000?mail=me@example.org",
        "['http://localhost:3000','me@example.org']",
        "http://[::1]:8000/a@b",
        "ssh://git@github.com:22/acme/app.git",
        "git@github.com:acme/app.git",
        "postgresql://app:***@db/app",
        "postgresql://${USER}:${PASSWORD}@db/app and redis://:$PASSWORD@host and x://{user}:{password}@h",
        "redis://[[username]:[password]]@localhost:6379/0",
        "postgresql://%s:%s@%s/%s and x://%(user)s:%(password)s@h",
        "acme/app:pr-7:base-a1:head-b2",
        "secret:env:GITHUB_TOKEN",
        "secret:vault:kv/data/github#token",
        "task-proj-renderer-with-a-long-name and risk-ant-colony-optimisation",
        "<div class='sk-fading-circle-spinner-animation'>",
        "the ghp_ prefix, github_pat_ and sk-ant-… are what GitHub and Anthropic use",
        "npm_config_registry=https://registry.npmjs.org npm_lifecycle_event=test",
        "pypi-attestations-and-other-long-names-of-packages-1.0.0.tar.gz",
        "MAKIAVELLI AKIA ASIAN AKIAIOSFODNN7EXAMPLELONGER",
        "eyJhbGciOiJIUzI1NiJ9 alone is a header without anything",
        f"no -----BEGIN {PEM} was found in the file",
        "-----BEGIN CERTIFICATE-----\nMIIB" + "A" * 60 + "\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB" + "A" * 60 + "\n-----END PUBLIC KEY-----",
        "Authorization: Bearer <token>",
        "the bearer of this letter; Basic understanding of authorization: token based",
        "bearer authentication is RFC 6750",
        "xoxo-hugs-and-kisses",
        base64.b64encode("What is ordinary text, ümläuts and all? ".encode() * 500).decode(),
        base64.b64encode(bytes(range(256)) * 40).decode(),
    ],
)
def test_ordinary_text_is_no_secret(text: str):
    assert find_secret({"text": text}) is None
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "authorization: basic scaffolding for roles",
        "fix: bearer authentication-middleware-refactoring",
        "feature/sk-20261128reviewpipelinev2",
        "Use Bearer YOUR_ACCESS_TOKEN_GOES_HERE_PLEASE",
        "docker://alpine:3.19@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "maven://org:artifact@1 and npm://scope:name@1.2.3",
        "Use Bearer authentication/authorization",
        "Authorization: Basic authentication is off",
        "Authorization: token required",
        "bearer 00000000-0000-0000-0000-000000000000",
        "sk-learnpipelinetransformers",
        "ghs_this_is_a_snake_case_function_name",
        "xoxb-your-token-here",
        f"AKIA{'IOSFODNN7EXAMPLE'}",
        f"-----BEGIN {PEM}\n...\n-----END {PEM}",
        f"-----BEGIN {PEM}\\n...",
        "glpat-your-access-token-here",
        "sk_test_your_key_goes_here_please",
        "?access_token=YOUR_TOKEN_GOES_HERE and &api_key={api_key}",
        "host=db user=app password=*** and ?password=${PASSWORD}",
        "allow ?password= in URLs; set password=required in the form",
        "Authorization: implement-role-based-access",
        "npm_lifecycle_event_of_the_package_manager",
        "Revert: Authorization: bearer-token-middleware-for-admins",
    ],
)
def test_a_title_that_only_begins_as_a_secret_does_is_taken(text: str):
    """
    INVARIANT: a pull request is reviewed whatever ordinary words its title has.

    Breaks if a format matches its prefix without the length that its secrets have.
    """
    assert None is find_secret({"title": text})


TOKEN = f"ghp_{A36}"


@pytest.mark.parametrize(
    "value, path",
    [
        (TOKEN, ""),
        ({"token": TOKEN}, "token"),
        ({"a": 1, "b": [None, {"c": ["x", TOKEN]}]}, "b[1].c[1]"),
        ([[TOKEN]], "[0][0]"),
        ({"a": "fine", "b": TOKEN, "c": f"sk_live_{A36}"}, "b"),
        ({"headers": {"Authorization": "Basic dXNlcjpwYXNz"}}, "headers.Authorization"),
        ({"a": {TOKEN: 1}}, "a"),
        ({TOKEN: {"a": TOKEN}}, ""),
    ],
)
def test_a_path_leads_to_the_first_secret_and_holds_none(value: object, path: str):
    found = find_secret(value)

    assert found is not None
    assert path == found[0]


@pytest.mark.parametrize(
    "value, field, allowed",
    [
        ({"a": [TOKEN]}, "a[0]", '("a",)'),
        ({"a": [{"b": TOKEN}]}, "a[0].b", '("a.b",)'),
        (TOKEN, "key", "True"),
        ({TOKEN: 1}, "key", "True"),
    ],
)
def test_a_refusal_names_the_field_and_the_way_out_and_not_the_secret(value: object, field: str, allowed: str):
    with pytest.raises(InputError) as refused:
        refuse_secrets("key", value)

    assert field == refused.value.field
    assert (
        f"{field}: looks like a GitHub token; pass a reference such as secret:env:NAME and read it with ctx.secret,"
        f" or declare the flow with allow_secrets={allowed}"
    ) == str(refused.value)


def test_data_as_deep_as_json_can_be_is_looked_through():
    value: object = {"at the bottom": TOKEN}
    for _ in range(100_000):
        value = [value]

    assert [1, {"a": "b"}] == veiled([1, {"a": "b"}])
    assert "[redacted: GitHub token]" == veiled(value)


@pytest.mark.parametrize(
    "text, left",
    [
        (f"AKIA{'IOSFODNN7EXAMPLE'}{TOKEN}", "[redacted: GitHub token]"),
        (f"see my-{TOKEN}-rest, and more", "see [redacted: GitHub token], and more"),
        (f"{TOKEN} {TOKEN}", "[redacted: GitHub token] [redacted: GitHub token]"),
        (f"{TOKEN}.{TOKEN}", "[redacted: GitHub token].[redacted: GitHub token]"),
        (f"https://me:{TOKEN}@host/x", "https://[redacted: URL with a password]@host/x"),
    ],
)
def test_a_mark_stands_for_all_of_a_word_once(text: str, left: str):
    assert left == redact(text)


GLUE = st.sampled_from(
    ["", " ", "\n", "\\n", "'", '"', "_", "-", "x", ".", "/", "@", ":", "://", "=", "Bearer ", "%20"]
)
SECRET = st.sampled_from([around.format(secret) for _, secret, around in ALL])
PIECES = st.lists(st.one_of(GLUE, SECRET, st.text(max_size=5)), max_size=12).map("".join)


@given(PIECES)
def test_nothing_is_found_in_what_is_left_whatever_stood_next_to_what(text: str):
    """
    INVARIANT: a redacted text holds nothing that looks like a secret.

    Breaks if a mark makes a boundary: what stood next to the secret would become a token of its own.
    """
    assert find_secret(redact(text)) is None
    assert redact(redact(text)) == redact(text)


#: A header of a key alone is taken for a cut key only where the text ends.
WHOLE = [case for case in ALL if case[1] != f"-----BEGIN {PEM}"]


@given(st.sampled_from(WHOLE), st.text(max_size=30), st.text(max_size=30))
def test_no_secret_survives_between_spaces(case: tuple[str, str, str], before: str, after: str):
    _, secret, around = case
    text = redact(f"{before} {around.format(secret)} {after}")

    assert secret not in text
