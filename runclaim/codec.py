"""
The codec of an application encodes at rest the values that the application puts into the ledger.

Every value that is written passes `sealed` (JSON text), `seal` (a JSON value) or `sealed_text`; the types of the
columns open values that are read. There is one codec in a process, because a value has to be opened wherever it is
read. Without a codec nothing is done, and a value that another process has sealed is read unchanged.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final, Protocol

from runclaim.errors import ConfigError, DeclarationError, RunclaimError


class Codec(Protocol):
    """
    Encodes what is kept, and decodes it; both are called from any thread.

    It gets up to some hundred kilobytes. To rotate keys, encode with the new one and decode with any.
    """

    def encode(self, plain: bytes, /) -> bytes:
        """The bytes to keep."""
        ...

    def decode(self, encoded: bytes, /) -> bytes:
        """The bytes that `encode` was given. Raises: any exception if it cannot tell."""
        ...


#: The only name in the object that takes the place of a value.
ENVELOPE: Final = "runclaim.codec"
_PREFIX: Final = f"{ENVELOPE}:"


class CodecFailed(RunclaimError):
    """The codec could not decode what the ledger has. Give it the key that it was encoded with, and try again."""


class _InUse:
    codec: Codec | None = None


def use(codec: Codec | None) -> None:
    """Have this process encode with `codec`; `None` changes nothing. Raises: DeclarationError for a second one."""
    if codec is None:
        return
    if _InUse.codec is not None and _InUse.codec is not codec:
        raise DeclarationError("this process has another codec already: give each Runclaim the same one")
    _InUse.codec = codec


def is_used() -> bool:
    """Whether this process has a codec."""
    return _InUse.codec is not None


def sealed(text: str) -> str:
    """JSON text of the value that stands for `text`, which is JSON as well."""
    return text if _InUse.codec is None else json.dumps({ENVELOPE: _encoded(_InUse.codec, text)})


def seal(value: Any) -> Any:
    """The JSON value that stands for `value`, or `None` for none."""
    if value is None or _InUse.codec is None:
        return value
    return {ENVELOPE: _encoded(_InUse.codec, json.dumps(value))}


def opened(value: Any) -> Any:
    """The JSON value that a value from the ledger stands for. Raises: CodecFailed."""
    if _InUse.codec is None or not is_sealed(value):
        return value
    return json.loads(_decoded(_InUse.codec, value[ENVELOPE]))


def is_sealed(value: Any) -> bool:
    """Whether a value stands for another one."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(ENVELOPE), str)


def needed(value: Any) -> Any:
    """The value that `value` stands for, to be worked with. Raises: CodecFailed, ConfigError without the codec."""
    found = opened(value)
    if is_sealed(found):
        raise ConfigError(
            "the ledger holds encoded data that this process cannot decode: start it with Runclaim(app, codec=…)"
        )
    return found


def sealed_text(text: str | None) -> str | None:
    """The text that stands for `text`."""
    return text if text is None or _InUse.codec is None else _PREFIX + _encoded(_InUse.codec, text)


def opened_text(text: str | None) -> str | None:
    """The text that a text from the ledger stands for. Raises: CodecFailed."""
    if text is None or _InUse.codec is None or not text.startswith(_PREFIX):
        return text
    return _decoded(_InUse.codec, text.removeprefix(_PREFIX))


def _encoded(codec: Codec, text: str) -> str:
    return base64.b64encode(codec.encode(text.encode())).decode()


def _decoded(codec: Codec, encoded: str) -> str:
    try:
        return codec.decode(base64.b64decode(encoded)).decode()
    except Exception as error:  # noqa: BLE001 - whatever it is, the value cannot be read
        # Not its words: they may hold what it was given.
        raise CodecFailed(f"the codec cannot decode a value of the ledger ({type(error).__name__})") from None
