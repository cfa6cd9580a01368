"""What ends our processes once we have ended, however we ended."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from pathlib import Path

#: Outlives its parent on purpose. Each line names the process groups that are up; the end of the pipe, which no SIGKILL
#: of the parent prevents, ends the last ones named and removes the folder. (PR_SET_PDEATHSIG would be Linux only, would
#: fire when the *thread* that started the processes ends, and would leave the folder.)
_SCRIPT = """
while read -r line; do groups=$line; done
for group in $groups; do kill -"$1" "-$group"; done
if [ -n "$groups" ]; then sleep 1; fi
for group in $groups; do kill -9 "-$group"; done
if [ -n "$0" ]; then rm -rf "$0"; fi
"""


class Guard:
    """A process that waits for the end of this one, then ends `groups` by the signal, and removes the folder."""

    def __init__(self, number: signal.Signals, folder: Path | None = None) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, str(folder or ""), str(int(number))], cwd="/", start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # fmt: skip

    @property
    def is_up(self) -> bool:
        """Whether it still waits."""
        return self._process.poll() is None

    def watch(self, *groups: int) -> None:
        """These process groups are up now, and no others."""
        if self._process.stdin:
            self._process.stdin.write(f"{' '.join(map(str, groups))}\n".encode())
            self._process.stdin.flush()

    def close(self) -> None:
        """Have it do its work now; returns when that is done."""
        self._process.communicate()
