"""An order goes through three phases; the one in the middle is done by a worker outside Celery."""

from __future__ import annotations

import os
from dataclasses import dataclass

from celery import Celery

from runclaim import Context, Runclaim

app = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost"))
runs = Runclaim(app)


@dataclass(frozen=True)
class Order:
    number: int
    pieces: int = 1


order = runs.flow("order", Order, key="order-{number}")


@order.phase
def reserve(ctx: Context[Order]) -> int:
    return ctx.input.pieces


@order.phase(queue="outside")  # no Celery worker reads this queue: worker.py claims the phase over HTTP
def price(ctx: Context[Order]) -> int:
    raise NotImplementedError("examples/http_worker/worker.py does this phase")


@order.phase
def charge(ctx: Context[Order]) -> str:
    return f"{ctx.result(price)} cents for {ctx.input.pieces}"
