"""
What looks like a secret: published token formats, private keys, URLs with a password, Authorization headers.

One table of rules serves both uses. `redact` cleans errors and logs and errs on the side of hiding; a rule asks for
less than a whole token, so that one which was cut is hidden too. `find_secret` refuses in inputs, where a title or a
branch may begin as a token does: it also asks whether what follows is as varied as what a machine made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import InputError
from runclaim.secret_formats import RULES

if TYPE_CHECKING:
    from collections.abc import Collection

#: Shorter than any secret of the table; most names of fields and many values are not even looked at.
_SHORTEST: Final = 8
_WORD: Final = re.compile(r"[A-Za-z0-9_-]*")
#: Nothing else in JSON data can hold a secret.
_LOOKED_AT: Final = (str, dict, list, tuple)
#: In one flat loop: most texts hold none of these, and every value of every input is looked at.
_HINTS: Final = tuple((hint, rule) for rule in RULES for hint in rule.hints)
#: Most hints hold one of these, and most texts hold few of them.
_MARKS: Final = ("_", "-", "=", ".", ":", "")
#: Each hint under the first mark that it holds; every text holds the last one.
_HINTS_BY_MARK: Final = tuple(
    (mark, tuple({hint for hint, _ in _HINTS if mark == next(each for each in _MARKS if each in hint)}))
    for mark in _MARKS
)

#: A place inside JSON data: the place around it, and the name or number in that.
_Place = tuple[Any, str | int]


def find_secret(value: Any, *, except_in: Collection[str] = ()) -> tuple[str, str] | None:
    """
    The path (`a.b[1]`) and the kind of the first secret in JSON data, or `None`; names of fields are looked at too.

    The path is empty for the value itself, and ends before a name that is a secret: it never holds one. Fields named
    in `except_in` (`a.b`, without indexes) and all below them are not looked at.
    """
    waiting: list[tuple[_Place | None, Any]] = [(None, value)]
    while waiting:
        place, found = waiting.pop()
        if except_in and _name(place) in except_in:
            continue
        if isinstance(found, str):
            if kind := _kind(_headed(place, found)):
                return _path(place), kind
        elif isinstance(found, dict):
            if kind := next(filter(None, (_kind(name) for name in found if isinstance(name, str))), None):
                return _path(place), kind
            waiting += [((place, name), item) for name, item in reversed(found.items()) if isinstance(item, _LOOKED_AT)]
        elif isinstance(found, list | tuple):
            waiting += [((place, index), found[index]) for index in reversed(range(len(found)))]
    return None


def refuse_secrets(field: str, value: Any, *, except_in: Collection[str] = ()) -> None:
    """
    Raise for the first secret in JSON data that is to be stored.

    Raises: InputError that names its path, or `field` for the value itself; never the secret.
    """
    if found := find_secret(value, except_in=except_in):
        path, kind = found
        article = "an" if kind[0] in "AO" else "a"
        raise InputError(
            path or field,
            f"looks like {article} {kind}; pass a reference such as secret:env:NAME and read it with ctx.secret,"
            f" or declare the flow with allow_secrets{_how(path)}",
        )


def redact(text: str) -> str:
    """`text` with `[redacted: kind]` for what looks like a secret, and for the whole word that contains it."""
    if not _is_hinted(text):
        return text
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


def kind_of(error: BaseException) -> str:
    """The name of an exception's class; a class may be named from any text, so the name is redacted as well."""
    return redact(type(error).__name__)


def veiled(value: Any) -> Any:
    """JSON data for an error's text: itself, or a mark when there is a secret in it."""
    found = find_secret(value)
    return value if found is None else f"[redacted: {found[1]}]"


def _is_hinted(text: str) -> bool:
    for mark, hints in _HINTS_BY_MARK:
        if mark in text:
            for hint in hints:
                if hint in text:
                    return True
    return False


def _kind(text: str) -> str | None:
    if len(text) < _SHORTEST or not _is_hinted(text):
        return None
    for hint, rule in _HINTS:
        if hint in text and rule.is_in(text):
            return rule.kind
    return None


def _headed(place: _Place | None, text: str) -> str:
    """The text as a header, where its field says that it is one."""
    name = place[1] if place else ""
    return f"{name}: {text}" if isinstance(name, str) and name.lower().endswith("authorization") else text


def _how(path: str) -> str:
    name = re.sub(r"\[\d+\]", "", path)
    return f'=("{name}",)' if name else "=True"


def _name(place: _Place | None) -> str:
    """The path without its indexes."""
    steps: list[str] = []
    while place is not None:
        place, step = place
        if not isinstance(step, int):
            steps.append(step)
    return ".".join(reversed(steps))


def _path(place: _Place | None) -> str:
    steps: list[str] = []
    while place is not None:
        place, step = place
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(reversed(steps)).lstrip(".")


def _is_word(letter: str) -> bool:
    return _WORD.fullmatch(letter) is not None


def _end_of_word(text: str, end: int) -> int:
    found = _WORD.match(text, end)
    return end if found is None else found.end()
