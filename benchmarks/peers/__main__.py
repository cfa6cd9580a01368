"""
Runclaim beside its peers: interleaved rounds on the same work, each peer by its own script, ratios inside the round.

    python -m benchmarks.peers --bench FOLDER [--only runclaim,dbos:tuned] [--works W2,W3] [--rounds 3]

The folder is the peers' bench; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.peers.bench import Bench
from benchmarks.peers.servers import servers
from benchmarks.peers.table import tables, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.peers.bench import Entry

_KEPT: Final = Path(tempfile.gettempdir()) / f"runclaim-peers-{os.getuid()}"
_PAGE: Final = Path(__file__).parent / "README.md"
_SHOWN: Final = ("runs_per_s", "drain_per_s", "single_per_s", "bulk_per_s", "start_p50", "finish_p50")


def main() -> None:
    """Measure, or only report what was measured before."""
    told = _asked()
    _KEPT.mkdir(mode=0o755, exist_ok=True)
    results: Path = told.results or _KEPT / f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    if not told.report:
        if not told.bench:
            raise SystemExit("which bench? Give --bench FOLDER or set RUNCLAIM_PEERS_BENCH")
        _measure(Bench(Path(told.bench).absolute(), _KEPT / "venvs"), told, results)
    found = [json.loads(line) for line in results.read_text().splitlines()]
    print(f"{tables(found)}\n\nthe figures: {results}")
    if told.write:
        write(_PAGE, found)


def _asked() -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    asked.add_argument("--bench", default=os.environ.get("RUNCLAIM_PEERS_BENCH"), help="the folder of the peers' bench")
    asked.add_argument("--only", default="runclaim:default,dbos:tuned,dbos:queue", help="peers, or peer:variant")
    asked.add_argument("--works", default="W2,W3")
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--runs", type=int, help="in place of each work's own number")
    asked.add_argument("--timeout", type=float, default=120, help="seconds that a peer has for its runs")
    asked.add_argument("--results", type=Path, help="where the figures are added, a line a measurement")
    asked.add_argument("--report", action="store_true", help="only the tables of what --results has")
    asked.add_argument("--write", action="store_true", help="renew the tables of README.md beside this program")
    return asked.parse_args()


def _measure(bench: Bench, told: argparse.Namespace, results: Path) -> None:
    entries = bench.chosen(told.only.split(","))
    for entry in entries:
        bench.python(entry)
    rabbit = any(entry.variant == "rabbit" for entry in entries)
    with (
        tempfile.TemporaryDirectory(prefix="runclaim-peers-") as folder,
        servers(Path(folder), with_rabbit=rabbit) as ports,
        results.open("a") as file,
    ):
        began = time.strftime("%Y-%m-%dT%H:%M:%S")
        for turn, work in itertools.product(range(told.rounds), told.works.split(",")):
            # Who begins changes from round to round.
            begins = turn % len(entries)
            for entry in (*entries[begins:], *entries[:begins]):
                if work in entry.works:
                    command = bench.command(entry, work, runs=told.runs, timeout=told.timeout)
                    environment = bench.environment(entry, Path(folder), ports)
                    found = _one(entry, work, command, environment, told.timeout)
                    file.write(json.dumps(found | {"round": f"{began} {turn}"}) + "\n")
                    file.flush()


def _one(entry: Entry, work: str, command: list[str], environment: Mapping[str, str], timeout: float) -> dict[str, Any]:
    """What the peer's script says in its last line of JSON; what failed says so, with the end of its words."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        said, complained = process.communicate(timeout=3 * timeout)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as ended:
        process.terminate()  # on which the script stops its workers
        said, complained = process.communicate(timeout=30)
        if isinstance(ended, KeyboardInterrupt):
            raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    lines = [line for line in said.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"ok": False, "error": complained[-2000:]}
    found |= {"peer": entry.peer, "variant": entry.variant, "work": work, "load": os.getloadavg()[0]}
    shown = " ".join(f"{name} {found[name]:.1f}" for name in _SHOWN if found.get(name))
    print(f"{time.strftime('%H:%M:%S')} {work} {entry.name}: {shown if found.get('ok') else found}", flush=True)
    return found


if __name__ == "__main__":
    main()
