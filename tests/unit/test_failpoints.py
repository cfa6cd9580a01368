"""The places where a test can hurt a process, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from runclaim import failpoints


def run(code, armed=None):
    env = os.environ | ({} if armed is None else {"RUNCLAIM_FAILPOINTS": armed})
    return subprocess.run(
        [sys.executable, "-c", f"from runclaim import failpoints\n{code}"],
        env=env, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_unarmed_every_place_is_passed():
    for name in failpoints.NAMES:
        failpoints.hit(name)


def test_an_armed_place_kills_the_process_once(tmp_path):
    armed = f"claim.after_commit=kill@{tmp_path}/once"
    code = "failpoints.hit('claim.before_commit')\nprint('before', flush=True)\nfailpoints.hit('claim.after_commit')"
    first, second = run(code, armed), run(code, armed)

    assert (-signal.SIGKILL, "before\n") == (first.returncode, first.stdout)
    assert 0 == second.returncode


def test_an_armed_place_can_raise(tmp_path):
    found = run("failpoints.hit('body.before')", f"body.before=raise@{tmp_path}/once")

    assert "failpoint body.before" in found.stderr


def test_several_places_can_be_armed(tmp_path):
    armed = f"body.before=raise@{tmp_path}/a;body.after=raise@{tmp_path}/b"
    code = "for name in failpoints.NAMES:\n    try: failpoints.hit(name)\n    except RuntimeError: print(name)"

    assert ["body.before", "body.after"] == run(code, armed).stdout.split()


@pytest.mark.parametrize("armed", ["nowhere=kill@/tmp/x", "body.before=explode@/tmp/x", "body.before=kill", "nonsense"])
def test_a_mistaken_setting_ends_the_process_with_the_names_there_are(armed):
    found = run("", armed)

    assert 1 == found.returncode
    assert "is not <name>=<action>@<file>" in found.stderr
    assert "claim.after_commit" in found.stderr
