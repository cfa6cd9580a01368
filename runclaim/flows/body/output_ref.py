"""Where the output of a phase lies: a URL of any scheme, in place of a result that is too large for the ledger."""

from __future__ import annotations

import re
from typing import Final

from runclaim.errors import InputError
from runclaim.keys import check_text
from runclaim.secrets import refuse_secrets

#: In UTF-8 bytes.
MAX_BYTES: Final = 2048
#: RFC 3986, 3.1, and something after the colon.
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_FIELD: Final = "output_ref"


def check_output_ref(url: object) -> str:
    """Return `url` if it can be kept. Raises: InputError; its text never holds what looks like a secret."""
    if not isinstance(url, str):
        raise InputError(
            _FIELD, f"is of type {type(url).__name__}, not text; pass a URL such as s3://bucket/report.json"
        )
    refuse_secrets(_FIELD, url)
    if (size := len(url.encode("utf-8", "replace"))) > MAX_BYTES:
        raise InputError(_FIELD, f"has {size:,} bytes, at most {MAX_BYTES:,} fit; store a longer list and point to it")
    if not _URL.fullmatch(url):
        raise InputError(_FIELD, "is not a URL; write its scheme first, as in s3://bucket/report.json")
    return check_text(_FIELD, url, cap=MAX_BYTES)
