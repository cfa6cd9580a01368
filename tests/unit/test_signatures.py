"""Signatures of webhooks: the published vectors hold, and every tampered twin of theirs is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runclaim.errors import ConfigError, SignatureRefused
from runclaim.signatures import (
    GITHUB_HEADERS,
    STANDARD_HEADERS,
    TOLERANCE_SECONDS,
    check_github,
    check_secrets,
    check_standard,
)

# The example of docs.github.com, "Validating webhook deliveries".
GITHUB_SECRET = "It's a Secret to Everybody"
GITHUB_BODY = b"Hello, World!"
GITHUB = {
    "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "x-github-event": "pull_request",
}
# The vector of the Standard Webhooks libraries.
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


@pytest.fixture
def in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment at which the vector was signed."""
    monkeypatch.setattr(time, "time", lambda: float(STANDARD["webhook-timestamp"]))


def signed_now(body: bytes, *, shift: int = 0, secret: str = STANDARD_SECRET) -> dict[str, str]:
    stamp = str(int(time.time()) + shift)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"id.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": "id",
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def test_githubs_own_example_holds_and_tells_the_delivery_and_the_event():
    signed = check_github(GITHUB_BODY, GITHUB, [GITHUB_SECRET])

    assert ("72d3162e-cc78-11e3-81ab-4c9367dc0958", "pull_request") == (signed.delivery_id, signed.event)


def test_the_standard_webhooks_vector_holds(in_time: None):
    assert STANDARD["webhook-id"] == check_standard(STANDARD_BODY, STANDARD, [STANDARD_SECRET]).delivery_id


@pytest.mark.parametrize("changed", ["body", "secret", "digest", "algorithm", "no signature", "no delivery"])
def test_a_tampered_delivery_of_github_is_refused(changed: str):
    headers, body, secret = dict(GITHUB), GITHUB_BODY, GITHUB_SECRET
    if changed == "body":
        body += b" "
    elif changed == "secret":
        secret += "!"
    elif changed == "digest":
        headers["x-hub-signature-256"] = headers["x-hub-signature-256"][:-1] + "8"
    elif changed == "algorithm":
        headers["x-hub-signature-256"] = headers["x-hub-signature-256"].replace("sha256", "sha1")
    else:
        headers.pop("x-hub-signature-256" if changed == "no signature" else "x-github-delivery")

    with pytest.raises(SignatureRefused):
        check_github(body, headers, [secret])


@pytest.mark.parametrize("name", ["x-github-delivery", "x-hub-signature-256"])
@pytest.mark.parametrize("bad", ["", "a\x00b", "a\ud800b"])
def test_a_header_that_none_can_be_is_refused_by_its_name(name: str, bad: str):
    with pytest.raises(SignatureRefused) as refused:
        check_github(GITHUB_BODY, GITHUB | {name: bad}, [GITHUB_SECRET])

    assert name == refused.value.header


@pytest.mark.parametrize(
    "changed", ["body", "secret", "id", "timestamp", "version", "no id", "no time", "text as time"]
)
def test_a_tampered_delivery_of_standard_webhooks_is_refused(in_time: None, changed: str):
    headers, body, secret = dict(STANDARD), STANDARD_BODY, STANDARD_SECRET
    if changed == "body":
        body = body.replace(b" ", b"")
    elif changed == "secret":
        secret = secret[:-1] + "x"
    elif changed == "id":
        headers["webhook-id"] += "x"
    elif changed == "timestamp":
        headers["webhook-timestamp"] = "1614265331"
    elif changed == "version":
        headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v1a,")
    elif changed == "text as time":
        headers["webhook-timestamp"] = "soon"
    else:
        headers.pop("webhook-id" if changed == "no id" else "webhook-timestamp")

    with pytest.raises(SignatureRefused):
        check_standard(body, headers, [secret])


@pytest.mark.parametrize("shift,holds", [(-299, True), (299, True), (-302, False), (302, False)])
def test_a_timestamp_holds_for_five_minutes_either_way(shift: int, holds: bool):
    headers = signed_now(b"{}", shift=shift)

    assert TOLERANCE_SECONDS == 300
    if holds:
        assert "id" == check_standard(b"{}", headers, [STANDARD_SECRET]).delivery_id
    else:
        with pytest.raises(SignatureRefused, match="300 s away"):
            check_standard(b"{}", headers, [STANDARD_SECRET])


def test_while_a_secret_is_replaced_either_signs():
    other = "whsec_" + base64.b64encode(b"another secret of 24 byte").decode()
    headers = signed_now(b"{}", secret=other)
    headers["webhook-signature"] = "v1,bm90IHRoaXM= " + headers["webhook-signature"]

    assert "id" == check_standard(b"{}", headers, [STANDARD_SECRET, other]).delivery_id
    assert (
        GITHUB["x-github-delivery"]
        == check_github(GITHUB_BODY, GITHUB, ["old and long enough", GITHUB_SECRET]).delivery_id
    )


#: What a header can hold that reached Python: any text at all, and what a time or a signature may be mistaken for.
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text("0123456789", min_size=1, max_size=600),
    st.sampled_from(
        ["9" * 400, "9" * 5000, "1e9", "-1", "+1", " 1", "1_000", "٣", "1614265330", "v1,", "v1,=", "sha256="]
    ),
    st.text("v1,= abcAB+/", max_size=80),
)


@given(st.dictionaries(st.sampled_from([*GITHUB_HEADERS, *STANDARD_HEADERS]), TEXTS), st.binary(max_size=50))
def test_only_a_refusal_ever_leaves_a_check(headers: dict[str, str], body: bytes):
    """
    INVARIANT: whoever has no secret is refused, whatever he writes; nothing else is raised and nothing is signed.

    Breaks if a header is decoded, split or compared before it is known to be well formed.
    """
    for check, secret in ((check_github, GITHUB_SECRET), (check_standard, STANDARD_SECRET)):
        with pytest.raises(SignatureRefused):
            check(body, headers, [secret])


def test_a_header_with_thousands_of_signatures_is_refused_before_they_are_compared():
    headers = signed_now(b"{}")
    headers["webhook-signature"] = " ".join(["v1,AAAA"] * 5000)

    with pytest.raises(SignatureRefused, match="more than 16"):
        check_standard(b"{}", headers, [STANDARD_SECRET])


@pytest.mark.parametrize("secrets", [[], ["short"], [""]])
def test_a_secret_that_protects_nothing_is_refused_without_being_shown(secrets: list[str]):
    with pytest.raises(ConfigError) as refused:
        check_secrets(secrets, standard=False)

    assert "short" not in str(refused.value)
