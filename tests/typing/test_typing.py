"""What the type checker of an application says about it: the right types, and an error for each mistake."""

from __future__ import annotations

import re
from pathlib import Path

from mypy import api

APPLICATION = Path(__file__).with_name("application.py")
_SAID = re.compile(r"application\.py:(\d+): (note|error): (.*)")


def test_mypy_sees_the_types_of_an_application_and_its_mistakes():
    """
    INVARIANT: `ctx.input`, `ctx.result(phase)` and every handle have the types that the application declared.

    Breaks if a generic is lost on the way (a decorator that returns Any), or py.typed is not shipped.
    """
    told, problems, _ = api.run(
        ["--strict", "--no-error-summary", "--hide-error-context", "--config-file=", str(APPLICATION)]
    )
    assert "" == problems

    expected = {
        (number, said)
        for number, line in enumerate(APPLICATION.read_text().splitlines(), start=1)
        for said in re.findall(r"# ((?:reveal|error): .+?)(?= #|$)", line)
    }
    assert expected == set(_told(told)), told


def _told(output: str) -> list[tuple[int, str]]:
    found = []
    for number, kind, words in _SAID.findall(output):
        if kind == "error":
            found.append((int(number), f"error: {words.rpartition('[')[2].rstrip(']')}"))
        elif revealed := re.fullmatch(r'Revealed type is "(.*)"', words):
            found.append((int(number), f"reveal: {revealed[1].replace('builtins.', '')}"))
    return found
