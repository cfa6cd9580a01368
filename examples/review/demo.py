"""
Reviews the last commits of a git repository while everything under it is broken on purpose.

    python3 dev.py demo [--repo PATH] [--pairs 40] [--ledger sqlite | postgresql+psycopg://…] [--seed N] [--keep]

Ends with `demo: R runs, P phases, F faults: 0 lost, 0 doubled`, and with exit status 1 if anything was lost or doubled,
or if no fault hit anything. The verdict comes from rows without constraints, not from runclaim's ledger.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviewer.changes import History, NotReviewable, history
from reviewer.record import chain_rows, review_rows
from trial import report
from trial.rounds import Outcome, Round
from trial.screen import Screen, many, screen
from trial.stage import Stage, StageFailed
from trial.witness import PHASES, Witness

from runclaim.errors import RunclaimError
from runclaim.states import TERMINAL

if TYPE_CHECKING:
    from runclaim import Run

_ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """The exit status."""
    options = _options()
    out = screen()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        found = history(options.repo, most=options.pairs)
        return _demo(out, options, found)
    except (NotReviewable, StageFailed, RunclaimError, RuntimeError) as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        print("\ndemo: stopped; its processes have ended and its files are gone", file=sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more
        return 1


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    repo = os.environ.get("REPO") or str(_ROOT)
    parser.add_argument("--repo", default=repo, help="the git repository; default: REPO, or this one")
    parser.add_argument("--pairs", type=_positive, default=40, help="how many commit pairs to review (40)")
    parser.add_argument("--ledger", default="sqlite", help="sqlite, or postgresql+psycopg://user@host/database")
    parser.add_argument("--strikes", type=_positive, default=6, help="workers and pool children to kill or stop (6)")
    seed = random.SystemRandom().randrange(10_000)
    parser.add_argument("--seed", type=int, default=seed, help="plans the same faults again")
    parser.add_argument("--no-chain", dest="chain", action="store_false", help="leave the bare celery.chain out")
    parser.add_argument("--keep", action="store_true", help="keep the ledger, the rows and the logs")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return int(text)


def _demo(out: Screen, options: argparse.Namespace, found: History) -> int:
    out.head(f"Reviewing {found.repo} while everything under it is broken on purpose")
    out.say(f"commits     {found.which}")
    # About as long as the faults come, whatever the number of reviews.
    with Stage(ledger=options.ledger, linger=min(1.5, max(0.3, 32 / len(found.pairs)))) as stage:
        stage.set_up(out)
        out.say(f"seed        {options.seed}; --seed {options.seed} plans the same faults again")
        ours, runs = _ours(out, options, found, stage)
        chain = _chain(out, options, found, stage) if options.chain else None
        stage.stop_workers()
        _report(out, runs, ours, chain)
        passed = _told(out, ours)
        if options.keep or not passed:
            out.say(f"demo: kept {stage.keep()}")
    _last_line(out, ours)
    return 0 if passed else 1


def _ours(out: Screen, options: argparse.Namespace, found: History, stage: Stage) -> tuple[Outcome, list[Run]]:
    """The round through runclaim."""
    # Imported here: the app reads its broker and its ledger from the environment that the stage has made.
    from reviewer.app import review

    runs: dict[tuple[str, str], Run] = {}

    def ask(pair: tuple[str, str]) -> Run:
        run = review.enqueue(repo=found.repo, base=pair[0], head=pair[1])
        runs.setdefault(pair, run)
        return run

    def is_over() -> bool:
        return len(runs) == len(found.pairs) and all(run.state in TERMINAL for run in runs.values())

    out.head(f"{many(len(found.pairs), 'review')} through runclaim, each enqueued twice at once")
    witness = Witness(review_rows, engine=stage.engine, folder=stage.folder, once=True)
    played = Round("runclaim", stage, witness, out, seed=options.seed, strikes=options.strikes, is_over=is_over)
    return played.play(found.pairs, ask), list(runs.values())


def _chain(out: Screen, options: argparse.Namespace, found: History, stage: Stage) -> Outcome:
    """The round as a bare chain."""
    from reviewer.chain import submit

    def ask(pair: tuple[str, str]) -> Any:
        return submit(found.repo, *pair)

    stage.end_beat()
    out.head("The same reviews as a bare celery.chain, on the same workers, under the same faults")
    witness = Witness(chain_rows, engine=stage.engine, folder=stage.folder, once=False)
    return Round("chain", stage, witness, out, seed=options.seed, strikes=options.strikes).play(found.pairs, ask)


def _report(out: Screen, runs: list[Run], ours: Outcome, chain: Outcome | None) -> None:
    from reviewer.app import runs as runclaim

    report.runs_table(out, runs, ours)
    report.faults_table(out, ours, chain)
    report.ledger_lines(out, runclaim, runs, ours)
    if chain:
        report.side_by_side(out, ours, chain)


def _told(out: Screen, ours: Outcome) -> bool:
    """Whether what was promised is what the witness found; says what is not."""
    verdict = ours.verdict
    out.say()
    for what, places in (("lost", verdict.lost), ("doubled", verdict.doubled), ("not asked for", verdict.strange)):
        for key, phase in places[:5]:
            out.say(f"demo: {what}: {phase} of {key}")
    if not ours.landed:
        out.say("demo: no fault hit work in flight, so this run shows nothing; try more commits: REPO=path")
    return bool(ours.landed) and not (verdict.lost or verdict.doubled or verdict.strange)


def _last_line(out: Screen, ours: Outcome) -> None:
    runs, faults = len(ours.keys), len(ours.landed)
    lost, doubled = len(ours.verdict.lost), len(ours.verdict.doubled) + len(ours.verdict.strange)
    out.say(f"demo: {runs} runs, {runs * len(PHASES)} phases, {faults} faults: {lost} lost, {doubled} doubled")


if __name__ == "__main__":
    sys.exit(main())
