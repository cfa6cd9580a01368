"""
A process that enqueues, to be killed: `python -m tests.faults.enqueuer NAME…` tells each acknowledged run in a line.

It stands for the web request of an application: what it printed, somebody was told.
"""

from __future__ import annotations

import json
import os
import sys

from tests.harness import build

if __name__ == "__main__":
    steps = build(json.loads(os.environ["HARNESS"])).steps
    for name in sys.argv[1:]:
        run = steps.enqueue(name=name)
        sys.stdout.write(f"acknowledged {run.id} {'created' if run.created else 'found'}\n")
        sys.stdout.flush()
