"""
Reviews the last commits of a git repository while everything under it is broken on purpose.

    python3 dev.py demo [--repo PATH] [--pairs 40] [--ledger sqlite | postgresql+psycopg://…] [--seed N] [--keep]

Ends with `demo: R runs, P phases, F faults: 0 lost, 0 doubled`, and with exit status 1 if anything was lost or doubled,
phases and comments alike, or if no fault hit anything. The verdict comes from rows without constraints and from the
forge that has the comments, not from runclaim's ledger.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reviewer.changes import History, NotReviewable, history
from reviewer.record import chain_comments, chain_rows, review_comments, review_rows
from sqlalchemy import select, union_all
from trial import beside, report
from trial.comments import Comments
from trial.deliveries import Sender
from trial.pulls import key_of, pulls, script
from trial.rounds import Outcome, Round
from trial.screen import Screen, many, screen
from trial.stage import Stage, StageFailed
from trial.witness import PHASES, Witness

from runclaim import models
from runclaim.errors import RunclaimError
from runclaim.states import TERMINAL

if TYPE_CHECKING:
    from reviewer.work import PullRequest
    from sqlalchemy import Table
    from trial.deliveries import Delivery

    from runclaim import Run, Runclaim
    from runclaim.types import Received

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
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return int(text)


def _demo(out: Screen, options: argparse.Namespace, found: History) -> int:
    out.head(f"Reviewing {found.repo} while everything under it is broken on purpose")
    out.say(f"commits     {found.which}")
    # About as long as the faults come, whatever the number of reviews.
    with Stage(ledger=options.ledger, clone=found.repo, linger=min(1.5, max(0.3, 28 / len(found.pairs)))) as stage:
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
    from reviewer.app import github
    from reviewer.app import runs as runclaim

    # Deliveries are the same for a seed, but for the secret that signs them.
    told = script(found, Sender(secret=stage.secret, rng=random.Random(options.seed)), owner="demo")  # noqa: S311 - for repeating
    overtaken = [key_of(pull) for pull in told.overtaken]
    runs: dict[str, Run] = {}

    def take(delivery: Delivery) -> Received:
        received = github.receive(delivery.body, delivery.headers)
        if received.run is not None:
            runs.setdefault(received.run.id, received.run)
        return received

    def is_over() -> bool:
        return len(runs) >= len(told.pulls) + len(told.overtaken) and _is_settled(runclaim)

    out.head(f"{many(len(told.pulls), 'pull request')} through runclaim, each delivered twice at once")
    played = Round(
        "runclaim",
        stage,
        Witness(review_rows, engine=stage.engine, folder=stage.folder, once=True, overtaken=overtaken),
        _comments(review_comments, stage, told.pulls),
        out,
        seed=options.seed,
        strikes=options.strikes,
        is_over=is_over,
    )
    batches = [[partial(take, delivery) for delivery in batch] for batch in told.batches]
    outcome = played.play(batches, [key_of(pull) for pull in told.pulls], overtaken)
    return outcome, list(runs.values())


def _is_settled(runclaim: Runclaim) -> bool:
    """Whether every run has ended, and every action of it."""
    live = select(models.runs.c.id).where(models.runs.c.state.not_in([state.value for state in TERMINAL]))
    unsent = select(models.actions.c.id).where(models.actions.c.state.in_(["planned", "sending"]))
    with runclaim.ledger.database.read() as conn:
        return conn.execute(union_all(live, unsent).limit(1)).first() is None


def _chain(out: Screen, options: argparse.Namespace, found: History, stage: Stage) -> Outcome:
    """The round as a bare chain."""
    from reviewer.chain import submit

    stage.end_beat()
    out.head("The same reviews as a bare celery.chain, on the same workers, under the same faults")
    wanted = pulls(found, owner="chain")
    played = Round(
        "chain",
        stage,
        Witness(chain_rows, engine=stage.engine, folder=stage.folder, once=False),
        _comments(chain_comments, stage, wanted),
        out,
        seed=options.seed,
        strikes=options.strikes,
    )
    batches = [[partial(submit, key_of(pull), asdict(pull))] * 2 for pull in wanted]
    return played.play(batches, [key_of(pull) for pull in wanted], [])


def _comments(rows: Table, stage: Stage, wanted: list[PullRequest]) -> Comments:
    return Comments(rows, engine=stage.engine, folder=stage.folder, file=stage.forge_file, repo=wanted[0].repo)


def _report(out: Screen, runs: list[Run], ours: Outcome, chain: Outcome | None) -> None:
    from reviewer.app import runs as runclaim

    report.runs_table(out, runs, ours)
    report.faults_table(out, ours, chain)
    beside.forge_table(out, ours, chain)
    report.ledger_lines(out, runclaim, runs, ours)
    beside.comments_table(out, ours, chain)
    if chain:
        beside.side_by_side(out, ours, chain)


def _told(out: Screen, ours: Outcome) -> bool:
    """Whether what was promised is what the witnesses found; says what is not."""
    out.say()
    for what, places in _wrong(ours).items():
        for place in places[:5]:
            out.say(f"demo: {what}: {place}")
    if not ours.landed:
        out.say("demo: no fault hit work in flight, so this run shows nothing; try more commits: REPO=path")
    return bool(ours.landed) and not any(_wrong(ours).values())


def _wrong(ours: Outcome) -> dict[str, list[str]]:
    """What is lost, doubled, or there and not asked for: phases and comments."""
    rows, said = ours.verdict, ours.tally
    return {
        what: [*(f"{phase} of {key}" for key, phase in places), *map(str, comments)]
        for what, places, comments in (
            ("lost", rows.lost, said.lost),
            ("doubled", rows.doubled, said.doubled),
            ("not asked for", rows.strange, said.strange),
        )
    }


def _last_line(out: Screen, ours: Outcome) -> None:
    runs, faults, wrong = len(ours.keys), len(ours.landed), _wrong(ours)
    lost, doubled = len(wrong["lost"]), len(wrong["doubled"]) + len(wrong["not asked for"])
    out.say(f"demo: {runs} runs, {runs * len(PHASES)} phases, {faults} faults: {lost} lost, {doubled} doubled")


if __name__ == "__main__":
    sys.exit(main())
