"""
`make mutants`: changes one place of the code at a time, and tells which changes no test notices.

    python -m mutants [--files GLOB ...] [--sample N] [--seed S] [--jobs N] [--seconds S] [--record]

Each mutant is run against the tests that ran its line when they were last recorded (the first time that takes as long
as these tests do), up to `--seconds` of them, in a copy of the working tree. A survivor is shown as a diff. The exit
status is 1 if one is not argued in mutants/survivors.toml: write the test that it needs, or say why it is harmless.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mutants.mutant import mutants_of, sample, sources
from mutants.recording import recorded
from mutants.run import Run, argued_in
from mutants.trial import benches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDERS: Final = tuple(f"runclaim/{name}/*.py" for name in ("ledger", "flows", "listeners", "api"))
#: Tests that run the code in their own process, so that what they ran can be recorded.
TESTS: Final = ("tests/ledger", "tests/flows", "tests/tasks", "tests/listeners", "tests/unit", "tests/api", "tests/cli")
#: Without `--files` and `--sample`: about half an hour on two quiet cores.
SAMPLE: Final = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the mutants, run their tests, tell; 1 if a survivor is not argued."""
    options = _options(arguments)
    # Whoever ends it ends its servers and removes its copies, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    root = options.root.resolve()
    texts = sources(root, options.files or FOLDERS)
    every = [mutant for path, text in texts.items() for mutant in mutants_of(path, text)]
    size = options.sample or (len(every) if options.files else SAMPLE)
    print(
        f"{len(every)} mutants of {len(texts)} files; trying {min(size, len(every))} (seed {options.seed})", flush=True
    )
    # The server outlives the trials: while one of them runs, it holds the pipe that tells the server to stop.
    with _postgres(root) as server, benches(root, options.jobs, server) as places:
        kept = root / ".cache" / "mutants"
        recording = recorded(places[0], kept, list(TESTS), jobs=options.jobs, anew=options.record)
        run = Run(
            root, texts, recording, seconds=options.seconds, argued=argued_in(root / "mutants" / "survivors.toml")
        )
        run.all(sample(every, size, options.seed), places)
    return run.summary()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py mutants", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--files", nargs="+", metavar="GLOB", help="only files that match, all of their mutants")
    parser.add_argument("--sample", type=int, metavar="N", help=f"at most N mutants ({SAMPLE} without --files)")
    parser.add_argument("--seed", type=int, default=1, help="which sample (1)")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at the same time (1)")
    parser.add_argument("--seconds", type=float, default=60, help="of tests for one mutant, as recorded (60)")
    parser.add_argument("--record", action="store_true", help="record anew which tests run which lines")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


_SERVER: Final = """
from tests.servers import postgres
with postgres().start() as server:
    print(server.url, flush=True)
    input()
"""


@contextlib.contextmanager
def _postgres(root: Path) -> Iterator[dict[str, str]]:
    """An environment that names one PostgreSQL for all trials, so that none of them has to start its own."""
    if "RUNCLAIM_TEST_POSTGRES_URL" in os.environ or not (root / "tests" / "servers").exists():
        yield {}
        return
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-B", "-c", _SERVER], cwd=root, **pipes) as server:
        url = server.stdout.readline().strip() if server.stdout else ""
        yield {"RUNCLAIM_TEST_POSTGRES_URL": url, "MUTANTS_SERVER": str(server.pid)}
        server.communicate("\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
