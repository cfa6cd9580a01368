"""Exceptions as others see them: redacted before they are cut, and never more than they may be."""

from __future__ import annotations

import pytest

from runclaim.errors import Redacted
from runclaim.keys import MAX_ERROR_BYTES
from runclaim.secrets import kind_of, redact
from runclaim.tracebacks import error_data, harmless, line_of

CANARY = "ghp_" + "Can4ry" * 6


def test_what_celery_and_flower_are_told_of_an_error_holds_no_secret():
    """They log, send and store it by ways of their own; an error without a secret is handed on as it is."""
    fine, leaky = ValueError("no secret"), ValueError(CANARY, "x" * 600)
    other = harmless(leaky, redact)

    assert fine is harmless(fine, redact)
    assert isinstance(other, Redacted)
    assert "ValueError: ('[redacted: GitHub token]'" in str(other)
    assert "ValueError: ('[redacted: GitHub token]'" in other.__notes__[0]
    assert (None, None) == (other.__cause__, other.__context__)
    assert CANARY not in f"{other!r} {error_data(other, str)} {line_of(leaky, redact)}"
    assert len(line_of(leaky, redact).encode()) <= 500


def test_the_name_of_an_exceptions_class_is_looked_at_too():
    """A class may be made and named from anybody's text, such as the code of an upstream's answer."""
    leaky = type(CANARY, (ValueError,), {})("no secret")

    assert CANARY not in str(error_data(leaky, redact))
    assert CANARY not in f"{harmless(leaky, redact)!r} {harmless(leaky, redact).__notes__}"
    assert "[redacted: GitHub token]" == kind_of(leaky)


def test_an_error_is_looked_at_whole_with_its_cause_and_its_arguments():
    class Short(Exception):
        def __str__(self) -> str:
            return "short"

    caused = ValueError("no secret")
    caused.__cause__ = ValueError(CANARY)
    for leaky in (Short(CANARY), caused):
        assert CANARY not in str(error_data(harmless(leaky, redact), str))
        assert CANARY not in repr(harmless(leaky, redact))


def test_what_ends_a_process_still_ends_it():
    coded = SystemExit(3)
    coded.__cause__ = ValueError(CANARY)
    interrupt = KeyboardInterrupt(CANARY)

    assert (3, None) == (harmless(coded, redact).code, harmless(coded, redact).__cause__)
    assert "[redacted: GitHub token]" == harmless(SystemExit(CANARY), redact).code
    assert interrupt is harmless(interrupt, redact)


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", "\x00", "\ud800"])
def test_an_error_takes_8_kb_at_most_and_keeps_its_head_and_its_tail(letter: str):
    long = type("E" * 9000, (ValueError,), {})
    error = error_data(long(f"head{letter * 100_000}tail"), redact)

    assert MAX_ERROR_BYTES >= sum(len(part.encode()) for part in error.values())
    assert error["message"].startswith("head")
    assert error["message"].endswith("tail")
    assert "bytes cut" in error["message"]
    assert error["traceback"].endswith("tail\n")


#: Where the message is cut, and where its traceback is.
@pytest.mark.parametrize("place", [*range(960, 1030, 2), *range(2860, 2940, 2)])
def test_a_secret_at_the_cut_leaves_no_half(place: int):
    """Breaks if the text is cut first: half a token looks like none."""
    error = error_data(ValueError(f"{'x ' * (place // 2)}{CANARY}{' y' * 5000}"), redact)

    assert not [piece for piece in (CANARY[:12], CANARY[4:16], CANARY[-12:]) if piece in str(error)]


def test_an_error_whose_words_and_picture_cannot_be_made_is_told_all_the_same():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    assert "its text could not be made" == error_data(Mute(), redact)["message"]
    assert "Mute('its text could not be made')" == line_of(Mute(), redact)
