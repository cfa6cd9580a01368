"""
An application as a type checker sees it. Nobody runs this; `test_typing.py` checks it with mypy --strict.

A comment that says reveal is what `reveal_type` has to say on its line; one that says error, the code of the error that
has to be there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypedDict, reveal_type

from celery import Celery
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.orm import scoped_session, sessionmaker

from runclaim import Backoff, Context, Run, Runclaim, RunState
from runclaim.types import OutsideEvent

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from runclaim.types import Delivery

app = Celery("reviews")
runs = Runclaim(app, lease=timedelta(seconds=30))


@dataclass(frozen=True)
class PullRequest:
    repo: str
    number: int


class Order(TypedDict):
    number: int


class Invoice(BaseModel):
    number: int


@dataclass
class Plan:
    paths: list[str]


review = runs.flow("review", PullRequest, key="{repo}:{number}", subject=lambda pull: pull.repo)
ship = runs.flow("ship", Order, key=lambda order: str(order["number"]))
bill = runs.flow("bill", Invoice, key="{number}")


@review.phase
def plan(ctx: Context[PullRequest]) -> Plan:
    reveal_type(ctx.input)  # reveal: application.PullRequest
    reveal_type(ctx.input.number)  # reveal: int
    return Plan([])


@review.phase(max_attempts=3, backoff=Backoff(first=timedelta(seconds=1)), lease=timedelta(minutes=2), queue="slow")
def deliver(ctx: Context[PullRequest]) -> int:
    reveal_type(ctx.result(plan))  # reveal: application.Plan
    reveal_type(ctx.result(plan).paths)  # reveal: list[str]
    ctx.in_completion(lambda session: session.execute(text("SELECT 1")))
    ctx.in_completion(write)
    ctx.check()
    ctx.result("plan")  # error: arg-type
    ctx.input.branch  # error: attr-defined # noqa: B018
    return len(ctx.result(plan).paths)


@runs.secret_resolver("vault")
def vault(name: str) -> str:
    return name


@runs.secret_resolver("bytes")  # error: arg-type
def in_bytes(name: str) -> bytes:
    return name.encode()


def write(session: Session) -> None:
    reveal_type(session.execute(text("SELECT 1")).scalar())  # reveal: Any | None


@review.phase(on="approved")
def compound(ctx: Context[PullRequest]) -> str:
    reveal_type(ctx.result(deliver))  # reveal: int
    reveal_type(ctx.attempt)  # reveal: int
    reveal_type(ctx.signal)  # reveal: Any
    reveal_type(ctx.secret("secret:env:TOKEN"))  # reveal: str
    reveal_type(ctx.idempotency_key)  # reveal: str
    ctx.key + ctx.result(deliver)  # error: operator
    return ctx.key


@ship.phase
def pack(ctx: Context[Order]) -> None:
    reveal_type(ctx.input["number"])  # reveal: int


@bill.phase
def write_invoice(ctx: Context[Invoice]) -> Invoice:
    reveal_type(ctx.input)  # reveal: application.Invoice
    return ctx.input


@ship.phase  # error: arg-type
def of_another_flow(ctx: Context[Invoice]) -> None:
    """A phase takes the context of its own flow."""


review.phase(max_attempt=3)  # error: call-overload
runs.flow("broken", PullRequest, key=lambda pull: pull.branch)  # error: attr-defined
runs.flow("broken", PullRequest, key=lambda pull: pull.number)  # error: arg-type # error: return-value


def enqueue(db: Session) -> None:
    reveal_type(review.enqueue(repo="a", number=1))  # reveal: runclaim.flows.client.handle.Run
    reveal_type(review.enqueue(PullRequest("a", 1), session=db))  # reveal: runclaim.flows.client.handle.Run
    review.enqueue(repo="a", number=1, session=scoped_session(sessionmaker()))
    reveal_type(review.enqueue_many([PullRequest("a", 1)]))  # reveal: list[runclaim.flows.client.handle.Run]
    later = review.using(delay=timedelta(hours=1))
    reveal_type(later.enqueue(repo="a", number=1))  # reveal: runclaim.flows.client.handle.Run
    review.enqueue(Order(number=1))  # error: arg-type
    review.using(delay=5)  # error: arg-type
    review.enqueue(repo="a", number=1, session="db")  # error: arg-type


async def enqueue_from_async(db: AsyncSession) -> None:
    reveal_type(await review.aenqueue(repo="a", number=1))  # reveal: runclaim.flows.client.handle.Run
    await review.aenqueue(PullRequest("a", 1), session=db)


def route(pull: PullRequest) -> Run | None:
    reveal_type(review.route(OutsideEvent(pull, phase=compound)))  # reveal: runclaim.flows.inbound.route.Routed
    review.route(OutsideEvent({"repo": "a", "number": 1}, phase="compound", id="1", payload=[1]))
    review.route(OutsideEvent(Order(number=1), phase=pack))  # error: arg-type
    review.phase(on=1)  # error: call-overload
    reveal_type(runs.signal("a:1", "approved", flow=review))  # reveal: runclaim.flows.client.handle.Run
    return review.find("a:1")


@runs.webhook("github", flow=review, secret="a secret of thirty-two characters")
def hook(delivery: Delivery) -> OutsideEvent[PullRequest] | None:
    return OutsideEvent(PullRequest("a", 1), phase=compound) if delivery.event else None


def claim_plainly(db: Session) -> None:
    reveal_type(runs.check_and_claim("nightly", key="2026-11-21"))  # reveal: runclaim.flows.plain_calls.Claimed | None
    reveal_type(runs.purge())  # reveal: int
    runs.check_and_claim("nightly")  # error: call-arg


def follow(run: Run) -> RunState:
    reveal_type(run.rerun(by="ann"))  # reveal: runclaim.flows.client.handle.Run
    reveal_type(run.events[0].type)  # reveal: str
    reveal_type(run.signal("approved", {"by": "ann"}, id="1"))  # reveal: runclaim.flows.client.handle.Run
    reveal_type(run.state)  # reveal: runclaim.states.RunState
    reveal_type(run.created)  # reveal: bool
    reveal_type(run.wait(timedelta(seconds=1)))  # reveal: Any
    run.wait(1)  # error: arg-type
    return run.cancel(by="ann")
