"""
The middleman: a proxy in front of the broker through which every task message is delivered three times.

It knows nothing of runclaim or Celery. What a client publishes (LPUSH to the task queue) it passes on with the value
three times, byte for byte; everything else, and every answer, passes unchanged. When the broker goes away, so do the
connections through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Final

TIMES: Final = 3
#: Celery's default queue, and what kombu appends to it for a priority.
_QUEUE: Final = b"celery"
_PRIORITY: Final = b"celery\x06\x16"


class Thrice:
    """A proxy on a free port of this machine, running in a thread of its own."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self.port = 0
        #: How many messages came, each of which left three times.
        self.messages = 0
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="middleman", daemon=True)
        self._thread.start()
        self._up.wait()

    @property
    def url(self) -> str:
        """What clients connect to instead of the broker."""
        return f"redis://127.0.0.1:{self.port}/0"

    def close(self) -> None:
        """Drop every connection; returns when the thread has ended."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(_cancel_others())
        self._loop.close()

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        writers = [client_out]
        try:
            broker_in, broker_out = await asyncio.open_connection("127.0.0.1", self._broker_port)
            writers.append(broker_out)
            ways = {
                asyncio.create_task(self._commands(client_in, broker_out)),
                asyncio.create_task(_answers(broker_in, client_out)),
            }
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the broker is down, or we close: the client finds its connection closed
        finally:
            for writer in writers:
                with contextlib.suppress(OSError):
                    writer.close()

    async def _commands(self, client: asyncio.StreamReader, broker: asyncio.StreamWriter) -> None:
        while words := await _command(client):
            if len(words) == 3 and words[0].upper() == b"LPUSH" and _is_task_queue(words[1]):  # noqa: PLR2004 - LPUSH key value
                self.messages += 1
                words += [words[2]] * (TIMES - 1)
            broker.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
            await broker.drain()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _is_task_queue(key: bytes) -> bool:
    return key == _QUEUE or key.startswith(_PRIORITY)


async def _command(client: asyncio.StreamReader) -> list[bytes]:
    """The words of one command, an array of bulk strings in RESP; empty at the end of the connection."""
    try:
        many = int((await client.readuntil(b"\r\n"))[1:])
        words = []
        for _ in range(many):
            length = int((await client.readuntil(b"\r\n"))[1:])
            words.append((await client.readexactly(length + 2))[:-2])
    except (asyncio.IncompleteReadError, ConnectionError):
        return []
    return words


async def _answers(broker: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while answer := await broker.read(65536):
            client.write(answer)
            await client.drain()
