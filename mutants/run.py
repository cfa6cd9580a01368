"""A run over a sample: every mutant gets its tests in helpings, few first, and a verdict that does not rest on luck."""

from __future__ import annotations

import contextlib
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
    running: list[str] = field(default_factory=list)
    #: The test that failed, while it runs without the mutant.
    doubted: str = ""


@dataclass
class Run:
    """Every mutant of a sample, and what became of it."""

    root: Path
    texts: dict[str, str]
    recording: Recording
    seconds: float
    argued: dict[tuple[str, str, str, str], str]
    verdicts: list[tuple[Mutant, str]] = field(default_factory=list)
    size: int = 0
    #: Tests that failed for a mutant and pass without it, and those that fail without it, too.
    sound: set[str] = field(default_factory=set)
    unsound: set[str] = field(default_factory=set)

    def all(self, mutants: Sequence[Mutant], places: Sequence[Bench]) -> None:
        """Keep every bench busy until no mutant is left."""
        waiting, free, busy = list(mutants), list(places), list[Case]()
        self.size = len(waiting)
        while waiting or busy:
            while waiting and free:
                if case := self._begin(waiting.pop(0), free[-1]):
                    busy.append(case)
                    free.pop()
            for case in busy[:]:
                if verdict := self._go_on(case):
                    busy.remove(case)
                    free.append(case.place)
                    case.place.write(case.mutant.path, self.texts[case.mutant.path])
                    self._note(case.mutant, verdict, case)
                    _end_what_is_left(busy, places)
            time.sleep(0.02)

    def _begin(self, mutant: Mutant, place: Bench) -> Case | None:
        text = mutant.text(self.texts[mutant.path])
        if text is None:
            self._note(mutant, "no change", None)
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
        if verdict == "survived" and case.doubted:
            self.sound.add(case.doubted)
            return "killed"
        if verdict is None or verdict == "timed out":
            return verdict
        if verdict == "killed":
            return self._doubt(case)
        case.helpings = [h for h in case.helpings if h]
        if not case.helpings:
            return "survived"
        case.running = case.helpings.pop(0)
        case.tests += len(case.running)
        self._start(case, case.running)
        return None

    def _doubt(self, case: Case) -> str | None:
        """Killed, if the test that failed passes without the mutant; else the tests after it have their turn."""
        if case.doubted:
            self.unsound.add(case.doubted)
            case.place.write(case.mutant.path, case.text)
            case.helpings.insert(0, [test for test in case.running if test not in self.unsound])
            case.doubted, case.trial = "", None
            return None
        failed = case.trial.failed() if case.trial else ""
        if failed in self.sound or failed not in case.running:  # the latter: the code cannot even be imported
            return "killed"
        case.doubted = failed
        case.place.write(case.mutant.path, self.texts[case.mutant.path])
        self._start(case, [failed])
        return None

    def _start(self, case: Case, tests: Sequence[str]) -> None:
        seconds = sum(self.recording.seconds[test] for test in tests)
        case.trial = case.place.start(tests, seconds=60 + 10 * seconds)

    def _note(self, mutant: Mutant, verdict: str, case: Case | None) -> None:
        before = self.texts[mutant.path]
        if case and verdict == "survived":
            verdict = "argued" if self.reason(mutant, case.text) else verdict if case.tests else "run by no test"
        self.verdicts.append((mutant, verdict))
        took = f" ({case.tests} tests, {time.monotonic() - case.started:.1f} s)" if case else ""
        took += f" by {case.doubted or case.trial.failed()}" if case and case.trial and verdict == "killed" else ""
        place = f"{mutant.path}:{mutant.line} {mutant.function}"
        print(f"[{len(self.verdicts)}/{self.size}] {verdict:9} {place}, {mutant.operator}{took}", flush=True)
        if case and verdict in {"survived", "run by no test"}:
            print(difference(mutant.path, before, case.text), flush=True)

    def reason(self, mutant: Mutant, text: str) -> str:
        """Why this survivor is harmless; nothing if nobody argued it."""
        return self.argued.get((mutant.path, mutant.function, *changed_lines(self.texts[mutant.path], text)), "")

    def summary(self) -> int:
        """Print how each folder did."""
        columns = ("killed", "timed out", "survived", "run by no test", "argued", "no change")
        print("\n" + " ".join(f"{column:>14}" for column in ("", *columns)))
        folder = {mutant: mutant.path.rsplit("/", 1)[0] for mutant, _ in self.verdicts}
        for name in sorted(set(folder.values())):
            counts = Counter(verdict for mutant, verdict in self.verdicts if folder[mutant] == name)
            print(f"{name.rsplit('/', 1)[-1]:>14} " + " ".join(f"{counts[column]:>14}" for column in columns))
        left = sum(verdict in {"survived", "run by no test"} for _, verdict in self.verdicts)
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
    ours = {case.trial.process for case in busy if case.trial} | {int(places[0].env.get("MUTANTS_SERVER", 0))}
    for child in psutil.Process().children():
        if child.pid not in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                end_all([child, *child.children(recursive=True)])
