"""Looking for secrets costs in proportion to the text, also where somebody made the text to be looked at for long."""

from __future__ import annotations

import time

import pytest

from runclaim.secrets import find_secret, redact

# Put together here, so that no scanner of this repository takes them for real.
TOKEN = "ghp_" + "Ab3" * 12
PEM = "PRIVATE KEY-----"

HOSTILE = {
    "every prefix": "ghp_ sk-ant- sk- eyJ AKIA AIza xoxb- npm_ pypi-AgE whsec_ glpat- github_pat_ bearer ",
    "prefixes in one word": "ghp_sk-eyJAKIAAIzaxoxb-npm_pypi-AgEwhsec_",
    "tokens in one word": f"sk-AKIA{TOKEN}",
    "JSON Web Tokens without an end": "eyJabcd.",
    "headers of JSON Web Tokens": "eyJabcdeyJabcd",
    "headers of keys": f"-----BEGIN {PEM}\n",
    "headers of keys that are none": f"-----BEGIN {PEM} x",
    "ends of keys": f"-----END {PEM}\n",
    "capitals": "-----BEGIN AAAAAAAA ",
    "dashes": "-",
    "URLs": "a://b:c",
    "URLs without a host": "a://",
    "colons": "a://b" + ":" * 50,
    "at signs": "a://b:c@",
    "at signs in one password": "@",
    "placeholders": "a://b:${c",
    "Authorization": "authorization: authorization='bearer ",
    "Bearer": "bearer bearer  bearer\t",
    "digests": "digest ",
    "responses": 'digest response="0a',
    "connection strings": "host=a user=b ",
    "passwords of connection strings": "host=a password=",
    "tokens in URLs": "?token=a&token=",
    "signatures": "Signature=0a?sig=a",
    "SendGrid keys without an end": "SG.aaaaaaaaaaaaaaaaaaaaaa",
    "Grafana tokens without an end": "glsa_aaaaaaaaaaaaaaaaaaaaaaaaa",
    "runclaim tokens without an end": "rc_0a0a0a0a0a0a_0a0a",
    "pins": "://a:b@1.1.1.1.",
    "spaces": " ",
    "letters": "a",
    "escapes": "\\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_costs_in_proportion_to_its_length(name: str):
    """
    INVARIANT: no input, error or log line can hold a worker up: 256 kB cost four times what 64 kB cost.

    Breaks if a pattern begins again inside what it has already looked at.
    """
    hints = "PRIVATE xox ghp_ sk- eyJ k_live_ :// authorization bearer assword= response= "
    begins = "a://b:" if "one password" in name else hints
    short, long = (begins + HOSTILE[name] * (size // len(HOSTILE[name])) for size in (64 * 1024, 256 * 1024))

    assert cost(long) < 9 * max(cost(short), 0.002), "16 times would be quadratic"
    assert find_secret(redact(long)) is None


def cost(text: str) -> float:
    """The processor's seconds, which other processes do not lengthen; the least of three."""
    spent = []
    for _ in range(3):
        began = time.process_time()
        redact(text)
        find_secret({"text": text})
        spent.append(time.process_time() - began)
    return min(spent)


def test_many_small_texts_cost_in_proportion_to_their_number():
    few, many = ([{"a field": "a value", "b": [TOKEN[:20]]}] * number for number in (2000, 8000))

    def its_cost(value: object) -> float:
        began = time.process_time()
        find_secret(value)
        return time.process_time() - began

    assert min(its_cost(many) for _ in range(3)) < 9 * max(min(its_cost(few) for _ in range(3)), 0.002)
