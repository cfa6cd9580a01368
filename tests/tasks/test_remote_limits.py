"""Limits by remote control: the worker's main process is told of them, and its pool children heed them."""

from __future__ import annotations

import os
from typing import Any

import pytest

from runclaim.broker import is_limited
from tests.harness.shop import Shop, quiet


def in_a_child(shop: Shop, changes: dict[str, Any], phase: str = "one") -> bool:
    """Whether a child that was forked before the changes finds the phase limited after them."""
    go, told = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(go[0], 1)
        os.write(told[1], b"1" if is_limited(shop.app, shop.app.tasks[f"order.{phase}"]) else b"0")
        os._exit(0)
    for name, value in changes.items():
        # As Celery's control commands do.
        setattr(shop.app.tasks["order.one"], name, value)
    os.write(go[1], b"1")
    answer = os.read(told[0], 1)
    os.waitpid(child, 0)
    for end in (*go, *told):
        os.close(end)
    return answer == b"1"


@pytest.mark.parametrize("name", ["rate_limit", "time_limit", "soft_time_limit"])
def test_a_child_sees_a_limit_that_remote_control_has_set_and_one_that_it_has_lifted(sqlite_url: str, name: str):
    """
    INVARIANT: a phase that is limited by remote control shares no message and follows none inline.

    Breaks if only the main process knows: the children go on running many bodies for each message that it counts.
    """
    shop = Shop(sqlite_url, one=quiet, two=quiet)

    assert not in_a_child(shop, {})
    assert in_a_child(shop, {name: 5})
    assert not in_a_child(shop, {}, phase="two")
    assert not in_a_child(shop, {name: None})


def test_a_limit_of_the_configuration_can_be_lifted_too(sqlite_url: str):
    shop = Shop(sqlite_url)
    shop.app.conf.task_annotations = {"order.one": {"rate_limit": "1/m"}}
    shop.phase("one", quiet)

    assert in_a_child(shop, {})
    assert not in_a_child(shop, {"rate_limit": None})


def test_a_message_that_names_several_runs_of_a_limited_phase_starts_one(sqlite_url: str):
    starts: list[str] = []
    shop = Shop(sqlite_url, one=lambda ctx: starts.append(ctx.input.name))
    runs = shop.enqueue("a", "b", "c")
    shop.sent()
    shop.app.tasks["order.one"].rate_limit = "12/m"
    shop.deliver(*runs)
    ids = {run.id for run in runs}

    assert ["a"] == starts
    assert [runs[1].id, runs[2].id] == [each for each in shop.sent() if each in ids]
