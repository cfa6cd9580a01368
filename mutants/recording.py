"""
Which tests belong to which line: what each of them ran when it was last recorded.

Kept in .cache between runs. A test file that changed since is recorded again; a source file that changed is looked up
by function instead of by line. What runs while a module is imported belongs to the tests of its file, and where it has
none, to those of the files that import it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from coverage.numbits import nums_to_numbits, register_sqlite_functions

from mutants.mutant import functions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mutants.mutant import Mutant
    from mutants.trial import Bench

#: Names the folder that the plugin in recorder.py writes to.
FOLDER: Final = "MUTANTS_RECORDING"


_TESTS: Final = (
    "SELECT context.context FROM line_bits JOIN context ON context.id = context_id JOIN file ON file.id = file_id"
    " WHERE file.path LIKE '%/' || ? AND (? IS NULL OR numbits_any_intersection(numbits, ?))"
)


@dataclass
class Batch:
    """What the tests of one process ran, in the source as it was then."""

    data: sqlite3.Connection
    seconds: dict[str, float]
    digests: dict[str, str]
    places: dict[str, list[tuple[int, int, str]]]

    @classmethod
    def read(cls, note: Path) -> Batch:
        """The batch whose note lies there, with coverage's own file beside it."""
        data = sqlite3.connect(note.with_suffix(".coverage"))
        register_sqlite_functions(data)
        return cls(data=data, **json.loads(note.read_text()))

    def tests(self, path: str, lines: Iterable[int] | None = None) -> set[str]:
        """The tests that passed and ran any of these lines of a file; without `lines` any line."""
        bits = None if lines is None else nums_to_numbits(lines)
        return {name for (name,) in self.data.execute(_TESTS, (path, bits, bits)) if name in self.seconds}

    def of_function(self, path: str, function: str) -> set[str]:
        """The tests that ran any line of a function."""
        spans = [range(start, end + 1) for start, end, name in self.places.get(path, []) if name == function]
        # Its first line runs on import, in whatever test comes first.
        return self.tests(path, [line for span in spans for line in span[1:]])


@dataclass
class Recording:
    """Every batch, the newest last."""

    batches: list[Batch]
    seconds: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = {name: seconds for batch in self.batches for name, seconds in batch.seconds.items()}

    def tests_for(self, mutant: Mutant, root: Path) -> list[str]:
        """The tests that ran this line, those of the file's own name first, then from every file, the fastest first."""
        now, path = digest(root / mutant.path), mutant.path
        names: set[str] = set()
        for batch in self.batches if mutant.function else ():  # else it runs on import, which is nobody's test
            of_line = batch.tests(path, [mutant.line]) if batch.digests.get(path) == now else set()
            names |= of_line or batch.of_function(path, mutant.function)
        names = names or {name for batch in self.batches for name in batch.tests(path)}
        return self._in_order(path, names or self._of_importers(path, root))

    def _of_importers(self, path: str, root: Path) -> set[str]:
        module = path.removesuffix(".py").replace("/", ".")
        files = {p for batch in self.batches for p in batch.digests if p.startswith("runclaim") and (root / p).exists()}
        importers = [p for p in files if module in imports((root / p).read_text())]
        return {name for p in importers for batch in self.batches for name in batch.tests(p)}

    def _in_order(self, path: str, names: Iterable[str]) -> list[str]:
        files: dict[str, list[str]] = {}
        for name in names:
            files.setdefault(file_of(name), []).append(name)
        takes = {file: sum(self.seconds[name] for name in of_file) for file, of_file in files.items()}
        places = []
        for file, of_file in files.items():
            named = is_named_after(file, path)
            for rank, name in enumerate(sorted(of_file, key=lambda n: (self.seconds[n], n))):
                # Of the other files one test each, then a second one: they differ more than the tests of one file.
                places.append((not named, 0 if named else rank, takes[file], rank, name))
        return [name for *_, name in sorted(places)]


def file_of(test: str) -> str:
    """The file that a test stands in."""
    return test.partition("::")[0]


def is_named_after(test: str, path: str) -> bool:
    """Whether a word of the test file's name begins as a word of the file's does: test_flow_groups.py for group.py."""
    words, others = ({w[:4] for w in Path(p).stem.split("_") if w not in {"test", "flow"}} for p in (test, path))
    return bool(words & others)


def imports(text: str) -> set[str]:
    """The modules that a module imports, by both of their spellings."""
    every = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            every |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            every |= {alias.name for alias in node.names}
    return every


def digest(path: Path) -> str:
    """What tells whether a file is as it was; nothing for one that is gone."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def recorded(bench: Bench, place: Path, tests: list[str], *, jobs: int, anew: bool) -> Recording:
    """What is kept in the folder `place`, brought up to date with the copy of the bench."""
    root = bench.root
    if anew:
        shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    files = {
        str(p.relative_to(root)): digest(p) for folder in tests for p in sorted((root / folder).rglob("test_*.py"))
    }
    notes = sorted(place.glob("*.json"), key=lambda note: note.stat().st_mtime)
    as_they_are = {f for note in notes for f, d in json.loads(note.read_text())["digests"].items() if files.get(f) == d}
    changed = sorted(files.keys() - as_they_are)
    if changed:
        print(
            f"recording which lines {len(changed)} of {len(files)} files of tests run; they are kept until they change"
        )
        _record(bench, changed, place, jobs=jobs)
    return Recording(_current(place, files))


def _record(bench: Bench, changed: list[str], place: Path, *, jobs: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "mutants.recorder", "-m", "not slow", *changed]
    spread = ["-n", str(jobs), "--dist", "worksteal"] if jobs > 1 else ["-n", "0"]
    started = time.monotonic()
    with TemporaryDirectory(prefix="runclaim-recording-") as folder:
        env = {**os.environ, **bench.env, FOLDER: folder}
        done = subprocess.run([*command, *spread], cwd=bench.root, env=env, check=False)
        if done.returncode not in {0, 1, 5}:
            sys.exit(f"the tests could not be recorded: pytest ended with {done.returncode}.\nFix: see the lines above")
        keep(bench.root, Path(folder), place, changed)
    print(f"recorded in {time.monotonic() - started:.0f} s" + " (failed tests are left out)" * (done.returncode == 1))


def keep(root: Path, folder: Path, place: Path, files: Iterable[str]) -> None:
    """Put what the recorder wrote to `folder` into `place`, with what tells later whether it still holds."""
    sources = {str(p.relative_to(root)): p for p in sorted((root / "runclaim").rglob("*.py"))}
    digests = {file: digest(root / file) for file in [*files, *sources]}
    places = {path: functions(ast.parse(source.read_text())) for path, source in sources.items()}
    for seconds in folder.glob("*.json"):
        name = f"{time.time_ns()}-{seconds.stem}"
        note = {"seconds": json.loads(seconds.read_text()), "digests": digests, "places": places}
        shutil.copy(seconds.with_suffix(".coverage"), place / f"{name}.coverage")
        (place / f"{name}.json").write_text(json.dumps(note))


def _current(place: Path, files: dict[str, str]) -> list[Batch]:
    """The batches with tests that are as they were; those without are removed."""
    current: list[Batch] = []
    for note in sorted(place.glob("*.json"), reverse=True):
        batch = Batch.read(note)
        batch.seconds = {n: s for n, s in batch.seconds.items() if batch.digests[file_of(n)] == files.get(file_of(n))}
        if batch.seconds:
            current.insert(0, batch)
        else:
            batch.data.close()
            note.unlink()
            note.with_suffix(".coverage").unlink()
    return current
