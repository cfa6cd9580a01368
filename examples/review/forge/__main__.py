"""
Serve a forge until SIGTERM or a kill.

    python -m forge FILE [--port 0]

Says where it is in one line. Started again with the same file and port it is the same forge.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from forge.server import Forge
from forge.store import Store


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="forge", description="A stand-in for a forge, on 127.0.0.1.")
    parser.add_argument("file", type=Path, help="where it keeps its comments (SQLite)")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    store = Store(options.file)
    with Forge(store, port=options.port) as forge:
        print(f"forge: {forge.url} ready.", flush=True)
        try:
            forge.serve_forever()
        except KeyboardInterrupt:
            return 0
        finally:
            store.close()
    return 0


def _stop(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
