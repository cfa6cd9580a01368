"""Messages of pool processes that were read in part when the broker's connection was lost."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from billiard.reduction import ForkingPickler
from celery.concurrency.asynpool import WORKER_UP, ResultHandler
from kombu.asynchronous import Hub

from runclaim.worker.result_pipes import guard

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pipe:
    """A pool process's pipe of results, read by Celery's own reader in Celery's own loop."""

    def __init__(self, *, pid: int = 0, patience: float = 30.0) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.received: list[int] = []
        self.hub = Hub()
        process = SimpleNamespace(pid=pid, outqR_fd=self.read_end)
        self._reader: Any = ResultHandler(
            None, None, {}, None, None, None, None, None, None,
            fileno_to_outq={self.read_end: process}, on_process_alive=self.received.append,
        )  # fmt: skip
        guard(self.hub, SimpleNamespace(_pool=SimpleNamespace(_pool=[process])), patience=patience)
        self.listen()

    def listen(self) -> None:
        """What Celery does whenever it connects."""
        self._reader.register_with_event_loop(self.hub)
        self.hub.add_reader(self.read_end, self._reader.handle_event, self.read_end)
        self._loop = self.hub.create_loop()

    def write(self, part: bytes) -> None:
        os.write(self.write_end, part)

    def turn(self) -> None:
        """The loop, once round."""
        next(self._loop)

    def close(self) -> None:
        self.hub.close()
        os.close(self.read_end)
        os.close(self.write_end)


def message(number: int) -> bytes:
    body = bytes(ForkingPickler.dumps((WORKER_UP, (number,))))
    return struct.pack("!i", len(body)) + body


@contextmanager
def pipe(**told: Any) -> Iterator[Pipe]:
    made = Pipe(**told)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("read", [1, 4, 9], ids=["part of the length", "the length", "part of the body"])
def test_a_message_that_is_half_read_at_a_reset_is_read_to_its_end(read: int):
    """
    INVARIANT: a worker that connects to the broker again goes on hearing each of its pool processes.

    Breaks if the loop is reset over a message that is half read: its rest is then taken for the next message, and
    every later result of that process is lost, with the process still in the pool.
    """
    with pipe() as results:
        results.write(message(1)[:read])
        results.turn()
        writer = threading.Timer(0.05, results.write, [message(1)[read:]])
        writer.start()

        results.hub.reset()
        writer.join()
        results.listen()
        results.write(message(2))
        results.turn()

        assert [1, 2] == results.received


def test_a_reset_between_two_messages_waits_for_none():
    with pipe() as results:
        results.write(message(1))
        results.turn()
        results.write(message(2)[:6])

        results.hub.reset()
        results.listen()
        results.turn()
        results.write(message(2)[6:])
        results.turn()

        assert [1, 2] == results.received


def test_a_process_that_stopped_in_the_middle_of_a_message_is_ended():
    """Its pipe is of no use any more; the pool puts another process in its place, with another pipe."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        with pipe(pid=process.pid, patience=0.01) as results:
            results.write(message(1)[:6])
            results.turn()

            results.hub.reset()

            assert -signal.SIGKILL == process.wait(10)
            assert [] == results.received
    finally:
        process.kill()
        process.wait()


def test_a_process_that_is_gone_holds_up_no_reset():
    with pipe() as results:
        results.write(message(1)[:6])
        results.turn()
        os.close(results.write_end)

        results.hub.reset()

        results.write_end = os.open(os.devnull, os.O_WRONLY)
        assert [] == results.received
