"""
Run keys, fingerprints, identifiers and the texts that both databases accept.

A key made from a template is identified by its parts, each with its length, so `("a", "b:c")` and
`("a:b", "c")` are two keys although they read the same. Hashes are whole SHA-256 values.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import string
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import DeclarationError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: In UTF-8 bytes. PostgreSQL refuses an index row above 8191 bytes; people cannot read one above this.
MAX_KEY_BYTES: Final = 512
#: In UTF-8 bytes of JSON. Larger things belong in a store of their own, with a reference in the input.
MAX_JSON_BYTES: Final = 256 * 1024
MAX_ERROR_BYTES: Final = 8 * 1024

#: What a key's template takes; a tuple, which is looked through faster than a union.
_IN_KEYS: Final = (str, int, float)
_COMPACT: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_CANONICAL: Final = json.JSONEncoder(allow_nan=False, sort_keys=True, separators=(",", ":"))
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")
#: Controls (C0 and C1, with NEL), separators of lines, and what turns the direction of writing: they steer a terminal.
STEERING: Final = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_CONTROL: Final = re.compile(rf"[{STEERING}\ud800-\udfff]")
#: How what takes the place of a value begins: of an erased one, of an encoded one.
_RESERVED: Final = '{"runclaim.'
_REFUSED_IN_JSON: Final = re.compile(r"\\u(0000|[dD][89a-fA-F])")


@dataclass(frozen=True, slots=True)
class RunKey:
    """A run key: the text people read, and the SHA-256 (64 hex digits) that decides."""

    text: str
    hash: str


def run_key(parts: Iterable[str]) -> RunKey:
    """Join `parts` to a key. Raises: InputError when the text is empty, too long or unprintable."""
    parts = list(parts)
    text = check_text("key", "".join(parts))
    encoded = [part.encode() for part in parts]
    digest = hashlib.sha256(b"".join([len(each).to_bytes(4, "big") + each for each in encoded]))
    return RunKey(text, digest.hexdigest())


def check_text(field: str, text: str, *, cap: int = MAX_KEY_BYTES) -> str:
    """Return `text` if both databases take it as a key. Raises: InputError that names `field`."""
    if not text:
        raise InputError(field, "is empty")
    if found := _CONTROL.search(text):
        raise InputError(field, f"contains the character {found.group()!r}; use printable text")
    if (size := len(text.encode())) > cap:
        raise InputError(field, f"has {size} bytes, at most {cap} fit; hash the long part")
    return text


def check_name(what: str, name: str) -> str:
    """Return the name of a flow, phase or project. Raises: DeclarationError when it is not a plain name."""
    if not _NAME.fullmatch(name):
        raise DeclarationError(f"{what} {name!r}: use letters, digits and _ . - (a letter first, at most 100)")
    return name


def check_id(field: str, text: str) -> str:
    """Return `text` if it spells a UUID. Raises: InputError that names `field`."""
    with suppress(ValueError):
        if isinstance(text, str) and uuid.UUID(text).int:
            return text
    raise InputError(field, f"is {text!r:.60}; write a UUID such as {uuid7()}")


class Template:
    """A key such as `{repo}:pr-{number}`, whose fields are fields of the input."""

    def __init__(self, text: str, fields: Iterable[str], *, what: str) -> None:
        known = list(fields)
        self.text = text
        self._pieces: list[tuple[str, str | None]] = []
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise DeclarationError(f"{what} {text!r} is not a valid template: {error}") from error
        for literal, field, spec, conversion in parsed:
            if spec or conversion:
                raise DeclarationError(
                    f"{what} {text!r}: write only {{{field}}} between the braces, or pass a function"
                )
            if field is not None and field not in known:
                raise DeclarationError(
                    f"{what} {text!r}: {{{field}}} is not a field of the input; it has {', '.join(known) or 'none'}"
                )
            self._pieces.append((literal, field))
        if not any(field for _, field in self._pieces):
            raise DeclarationError(f"{what} {text!r} has no {{field}}, so every input would be the same run")

    def readings(self, text: str, *, at_most: int) -> list[tuple[str, ...]]:
        """The ways in which `text` can have been made from this template: its `parts`, `at_most` of them."""

        @cache
        def rest(index: int, start: int) -> list[tuple[str, ...]]:
            if index == len(self._pieces):
                return [()] if start == len(text) else []
            literal, field = self._pieces[index]
            begin = start + len(literal)
            if not text.startswith(literal, start):
                return []
            if field is None:
                return [(literal, *more) for more in rest(index + 1, begin)]
            ends = range(begin, len(text) + 1)
            found = ((literal, text[begin:end], *more) for end in ends for more in rest(index + 1, end))
            return list(islice(found, at_most))

        return rest(0, 0)

    def parts(self, values: Mapping[str, Any]) -> list[str]:
        """The literals and the values in order. Raises: InputError for a value that is not text, a number or a bool."""
        found: list[str] = []
        for literal, field in self._pieces:
            found.append(literal)
            if field is not None:
                try:
                    value = values[field]
                except KeyError:
                    raise InputError(field, "is missing, but the key contains it") from None
                value = value.value if isinstance(value, Enum) else value
                if not isinstance(value, _IN_KEYS):
                    raise InputError(
                        field, f"is {value!r:.40}; a key takes text and numbers (pass a function as the key)"
                    )
                found.append(str(value))
        return found


def dump_json(field: str, value: Any, *, cap: int = MAX_JSON_BYTES) -> str:
    """
    JSON text of `value` that both databases accept.

    Raises: InputError for NaN, for what JSON does not know, for NUL and lone surrogates, and above `cap` bytes.
    """
    try:
        text = _COMPACT.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ValueError):
            # One that contains itself has no end; the words of the error say so.
            with suppress(RecursionError):
                _check(field, value)
        raise InputError(
            field, f"is not JSON ({error}); return or pass plain dicts, lists, text and numbers"
        ) from error
    if _REFUSED_IN_JSON.search(text):
        _check(field, value)
    if text.startswith(_RESERVED):
        raise InputError(field, "begins with a name that starts with runclaim., which is reserved; use another name")
    # Escapes are ASCII; what counts is the text that they stand for.
    if len(text) > cap and (size := len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())) > cap:
        raise InputError(
            field, f"has {size:,} bytes of JSON, at most {cap:,} fit; store it elsewhere and pass a reference"
        )
    return text


def _check(path: str, value: Any) -> None:
    """Raise for the first text or number that a database refuses, naming the place."""
    if isinstance(value, str) and re.search(r"[\x00\ud800-\udfff]", value):
        raise InputError(path, "contains NUL or a lone surrogate, which databases refuse; remove it")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(path, f"is {value}, which JSON does not have; use None or text")
    if isinstance(value, dict):
        for name, item in value.items():
            _check(path, name)
            _check(f"{path}.{name}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(f"{path}[{index}]", item)


def fingerprint(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`: sorted keys, no spaces."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def storable(text: str) -> str:
    """`text` as both databases take it: without NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def clip(text: str, cap: int = MAX_ERROR_BYTES) -> str:
    """`text` as both databases take it, cut in the middle to at most `cap` bytes at character boundaries."""
    clean = storable(text).encode()
    if len(clean) <= cap:
        return clean.decode()
    mark = f"\n… {len(clean) - cap:,} bytes cut …\n"
    half = (cap - len(mark.encode())) // 2
    return clean[:half].decode("utf-8", "ignore") + mark + clean[-half:].decode("utf-8", "ignore")


def uuid7() -> str:
    """
    A new identifier that sorts by time to a quarter of a microsecond; not a lock, not a clock.

    RFC 9562, version 7, with the first twelve random bits replaced by the fraction of the millisecond (section 6.2,
    method 3): what one process makes one after the other sorts in that order.
    """
    stamp, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = (nanoseconds << 12) // 1_000_000
    rest = int.from_bytes(os.urandom(8), "big") & 0x3FFFFFFFFFFFFFFF
    text = f"{stamp << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | rest:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def key_id(namespace: str, key: RunKey) -> str:
    """The identifier that a key itself has, known without any database: a UUID of version 8 (RFC 9562)."""
    digest = int.from_bytes(hashlib.sha256(f"{namespace}/{key.hash}".encode()).digest()[:16], "big")
    return str(uuid.UUID(int=(digest & ~(0xF << 76) & ~(0b11 << 62)) | 8 << 76 | 0b10 << 62))


def is_key_id(text: str) -> bool:
    """Whether an identifier was made by `key_id`."""
    return uuid.UUID(text).version == 8  # noqa: PLR2004 - as above


def nonce() -> str:
    """A fresh owner: 128 random bits. It is what tells two claims apart when a failover repeats a fence."""
    return os.urandom(16).hex()
