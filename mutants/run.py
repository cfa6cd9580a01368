"""A run over a sample: every mutant gets its tests in helpings, few first, and a verdict that does not rest on luck."""

from __future__ import annotations

import time
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

import psutil

from mutants.mutant import changed_lines, difference
from mutants.trial import end_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mutants.mutant import Mutant
    from mutants.recording import Recording
    from mutants.trial import Bench, Trial

#: Most mutants fail one of the first few tests: recorded seconds of the first two helpings.
HELPINGS: Final = (4.0, 20.0)


@dataclass
class Case:
    """A mutant on its way through its helpings of tests."""

    mutant: Mutant
    text: str
    helpings: list[list[str]]
    place: Bench
    started: float = field(default_factory=time.monotonic)
    trial: Trial | None = None
    tests: int = 0


@dataclass
class Run:
    """Every mutant of a sample, and what became of it."""

    root: Path
    texts: dict[str, str]
    recording: Recording
    seconds: float
    argued: dict[tuple[str, str, str, str], str]
    verdicts: dict[Mutant, str] = field(default_factory=dict)
    killers: dict[Mutant, str] = field(default_factory=dict)
    #: Tests that fail without any mutant, too.
    unsound: set[str] = field(default_factory=set)

    def all(self, mutants: Sequence[Mutant], places: Sequence[Bench]) -> None:
        """Give every mutant its verdict."""
        waiting, checked = list(mutants), set[str]()
        while waiting:
            self._round(waiting, places)
            # A test that failed must pass without the mutant; else the mutant is tried again without that test.
            doubtful = sorted({*self.killers.values()} - checked - {""})
            checked.update(doubtful)
            self.unsound |= places[0].failures(doubtful, seconds=self._limit(doubtful)) & set(doubtful)
            waiting = [mutant for mutant, killer in self.killers.items() if killer in self.unsound]
            for mutant in waiting:
                del self.killers[mutant], self.verdicts[mutant]
        for test in sorted(self.unsound):
            print(f"fails without any mutant, so it tells nothing: {test}")

    def _round(self, mutants: Sequence[Mutant], places: Sequence[Bench]) -> None:
        """Keep every bench busy until no mutant is left."""
        waiting, free, busy = list(mutants), list(places), list[Case]()
        size = len(waiting) + len(self.verdicts)
        while waiting or busy:
            while waiting and free:
                if case := self._begin(waiting.pop(0), free[-1], size):
                    busy.append(case)
                    free.pop()
            for case in busy[:]:
                if verdict := self._go_on(case):
                    busy.remove(case)
                    free.append(case.place)
                    case.place.write(case.mutant.path, self.texts[case.mutant.path])
                    self._note(case.mutant, verdict, size, case)
                    _end_what_is_left(busy, places)
            time.sleep(0.02)

    def _begin(self, mutant: Mutant, place: Bench, size: int) -> Case | None:
        text = mutant.text(self.texts[mutant.path])
        if text is None:
            self._note(mutant, "no change", size, None)
            return None
        helpings = self._helpings(self.recording.tests_for(mutant, self.root))
        if helpings:
            place.write(mutant.path, text)
        return Case(mutant, text, helpings, place)

    def _helpings(self, tests: list[str]) -> list[list[str]]:
        """The tests in helpings: few at first, and at the end no more than allowed."""
        taken, steps, taking = 0.0, list[int](), list[str]()
        for test in (t for t in tests if t not in self.unsound):
            taken += self.recording.seconds[test]
            taking.append(test)
            steps.append(sum(taken > limit for limit in HELPINGS))
            if taken > self.seconds:
                break
        grouped = groupby(zip(steps, taking, strict=True), key=lambda pair: pair[0])
        return [[test for _, test in group] for _, group in grouped]

    def _go_on(self, case: Case) -> str | None:
        """The verdict, or `None` while tests are left."""
        verdict = case.trial.poll() if case.trial else "survived"
        if verdict == "killed" and case.trial:
            self.killers[case.mutant] = case.trial.failed()
        if verdict != "survived" or not case.helpings:
            return verdict
        tests = case.helpings.pop(0)
        case.tests += len(tests)
        case.trial = case.place.start(tests, seconds=self._limit(tests))
        return None

    def _limit(self, tests: Sequence[str]) -> float:
        """After so many seconds it has hung, also on a busy machine."""
        return 60 + 10 * sum(self.recording.seconds[test] for test in tests)

    def _note(self, mutant: Mutant, verdict: str, size: int, case: Case | None) -> None:
        before = self.texts[mutant.path]
        if case and verdict == "survived":
            verdict = "argued" if self.reason(mutant, case.text) else verdict if case.tests else "run by no test"
        self.verdicts[mutant] = verdict
        took = f" ({case.tests} tests, {time.monotonic() - case.started:.1f} s)" if case else ""
        by = f" by {self.killers[mutant]}" if verdict == "killed" else ""
        place = f"{mutant.path}:{mutant.line} {mutant.function}"
        print(f"[{len(self.verdicts)}/{size}] {verdict:9} {place}, {mutant.operator}{took}{by}", flush=True)
        if case and verdict in {"survived", "run by no test"}:
            print(difference(mutant.path, before, case.text), flush=True)

    def reason(self, mutant: Mutant, text: str) -> str:
        """Why this survivor is harmless; nothing if nobody argued it."""
        return self.argued.get((mutant.path, mutant.function, *changed_lines(self.texts[mutant.path], text)), "")

    def summary(self) -> int:
        """Print how each folder did."""
        columns = ("killed", "timed out", "survived", "run by no test", "argued", "no change")
        print("\n" + " ".join(f"{column:>14}" for column in ("", *columns)))
        folder = {mutant: mutant.path.rsplit("/", 1)[0] for mutant in self.verdicts}
        for name in sorted(set(folder.values())):
            counts = Counter(verdict for mutant, verdict in self.verdicts.items() if folder[mutant] == name)
            print(f"{name.rsplit('/', 1)[-1]:>14} " + " ".join(f"{counts[column]:>14}" for column in columns))
        left = sum(verdict in {"survived", "run by no test"} for verdict in self.verdicts.values())
        if left:
            print(
                f"\n{left} survived. Each is above as a diff: write the test that notices it, or argue in "
                "mutants/survivors.toml why it is harmless."
            )
        return 1 if left else 0


def argued_in(place: Path) -> dict[tuple[str, str, str, str], str]:
    """The survivors that somebody argued, each with the reason: file, function, what was, what is."""
    entries = tomllib.loads(place.read_text()).get("survivor", []) if place.exists() else []
    return {(e["file"], e["function"], e["was"], e["is"]): e["reason"] for e in entries}


def _end_what_is_left(busy: Sequence[Case], places: Sequence[Bench]) -> None:
    """Servers and workers whose trial was killed are our children now."""
    ours = {case.trial.process for case in busy if case.trial} | {int(places[0].server.get("MUTANTS_SERVER", 0))}
    for child in psutil.Process().children():
        if child.pid not in ours:
            end_all([child])
