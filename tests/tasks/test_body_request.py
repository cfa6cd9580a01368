"""The request of a body's own task is made when somebody looks at it, and is Celery's own then."""

from __future__ import annotations

from threading import Thread

import pytest
from celery import Celery
from celery.app.task import Context

from runclaim.tasks.body_request import own_request

LOOKS = {
    "an attribute": lambda request: request.id,
    "a default": lambda request: request.is_eager,
    "get": lambda request: request.get("id"),
    "its dict": lambda request: vars(request)["id"],
    "its text": repr,
    "an attribute that is set": lambda request: setattr(request, "mine", 1),
    "whether it has one": lambda request: hasattr(request, "nothing"),
}


@pytest.fixture
def task():
    app = Celery("shop", broker="memory://", set_as_current=False)

    @app.task(name="shop.pay", shared=False)
    def pay():
        pass

    app.finalize()
    return app.tasks["shop.pay"]


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_whatever_looks_first_finds_an_ordinary_request(task, look):
    with own_request(task, lambda: {"id": "a", "headers": {"tenant": "acme"}, "retries": 2}):
        look(task.request)
        found = task.request

    assert Context is type(found)
    assert ("a", {"tenant": "acme"}, 2, False) == (found.id, found.headers, found.retries, found.called_directly)
    assert "_make" not in vars(found)


def test_nobody_who_does_not_look_pays_for_it(task):
    made = []
    with own_request(task, lambda: made.append(1) or {}):
        assert task.request_stack.top is not None

    assert [] == made


def test_what_is_set_on_it_stays(task):
    with own_request(task, lambda: {"id": "a"}):
        task.request.id = "b"
        found = task.request.id

    assert "b" == found


def test_two_threads_of_a_body_find_the_same(task):
    found = []
    with own_request(task, lambda: {"id": "a"}):
        request = task.request
        threads = [Thread(target=lambda: found.append(request.id)) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    assert ["a"] * 8 == found
