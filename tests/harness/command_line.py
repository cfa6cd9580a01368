"""The command line in the test's own process."""

from __future__ import annotations

from inspect import signature

from click.testing import CliRunner


def runner() -> CliRunner:
    """A runner that tells stdout from stderr; click before 8.2 has to be told to."""
    apart = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}
    return CliRunner(**apart)
