"""
Celery processes without the seconds of their imports: one process has the libraries, and each start is a fork of it.

`python -P nursery.py FD` answers on that socket, a line of JSON for each: {"command", "env", "folder", "files"} is
answered by {"pid"}, and each end of a child is told as {"pid", "status"}. It is run as a file, because its package
would import the application of the tests: what is forked has imported libraries and nothing of runclaim's, and from
there on it is what the command line would have made of it. What an interpreter reads when it starts, such as
PYTHONHASHSEED, needs a real start: see `takes`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LIBRARIES: Final = (
    "celery.apps.beat", "celery.apps.worker", "celery.bin.beat", "celery.bin.worker", "celery.concurrency.prefork",
    "celery.worker.consumer", "click_didyoumean", "click_repl", "flower.command", "kombu.transport.redis", "psutil",
    "psycopg", "redis", "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite",
    "sqlalchemy.orm",
)  # fmt: skip
#: Read by the interpreter itself, or by the loader before it.
_OF_THE_INTERPRETER: Final = ("PYTHON", "LD_")
_WRITTEN: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_OURS: Final = {"PYTHONPATH", "PYTHONUNBUFFERED"}


def takes(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a fork becomes the same as a start: Python at a module or at code, on a pool that patches nothing."""
    words = list(map(str, command))
    changed = {name for name in env if name.startswith(_OF_THE_INTERPRETER) and env[name] != os.environ.get(name)}
    return (
        words[0] == sys.executable
        and (words[1:3] == ["-m", "celery"] or words[1] == "-c")
        and not {"gevent", "eventlet", "flower"} & set(words)
        and not changed - _OURS
    )


def serve(line: socket.socket) -> dict[str, Any] | None:
    """Fork for each request until the other end is gone. Returns: in a child, what it was asked to become."""
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    requests = line.makefile("r", encoding="utf-8")
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                    _tell_ends(line)
                elif not (request := requests.readline()):
                    return None
                elif (pid := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for end in (wake, woken, line):
                        end.close()
                    return dict(json.loads(request))
                else:
                    _tell(line, pid=pid)


def _tell_ends(line: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            _tell(line, pid=ended[0], status=os.waitstatus_to_exitcode(ended[1]))


def _tell(line: socket.socket, **what: int) -> None:
    line.sendall(json.dumps(what).encode() + b"\n")


def become(request: dict[str, Any]) -> None:
    """Go on as the command that was asked for, in a session, a folder and an environment of its own."""
    os.setsid()
    for standard, (file, flags) in enumerate(zip(request["files"], (os.O_RDONLY, _WRITTEN, _WRITTEN), strict=True)):
        fd = os.open(file, flags, 0o644)
        os.dup2(fd, standard)
        os.close(fd)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.path[:0] = [request["folder"], *filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))]
    _, how, what, *words = request["command"]
    gc.unfreeze()
    if how == "-m":
        sys.argv = [what, *words]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [how, *words]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})


def main() -> None:
    """Import the libraries, serve, and in a child become what was asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _LIBRARIES:
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as line:
        request = serve(line)
    if request is not None:
        become(request)


if __name__ == "__main__":
    main()
