"""Every help is quick, imports nothing heavy, and the pages agree with it."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from runclaim import cli
from runclaim.cli.exits import Exit
from runclaim.cli.lazy import Lazy
from tests.harness.command_line import runner

ROOT = Path(__file__).parents[2]
HEAVY = ("celery", "kombu", "sqlalchemy", "alembic", "fastapi", "msgspec", "rich")


def commands(group: click.Command = cli.command, *path: str) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command with its path, the groups too."""
    found = [(path, group)]
    if isinstance(group, click.Group):
        ctx = click.Context(group)
        for name in group.list_commands(ctx):
            its = group.get_command(ctx, name)
            assert its is not None
            found += commands(its, *path, name)
    return found


EVERY = commands()


def test_no_help_imports_celery_or_sqlalchemy():
    """INVARIANT: a help costs what click costs. Breaks when a module of a command imports the ledger at its top."""
    asked = (
        "import sys; from click.testing import CliRunner; from runclaim import cli\n"
        f"for words in {[list(path) for path, _ in EVERY]!r}:\n"
        "    told = CliRunner().invoke(cli.command, [*words, '--help'])\n"
        "    assert told.exit_code == 0, (words, told.output)\n"
        f"    assert not (found := [name for name in {HEAVY!r} if name in sys.modules]), (words, found)\n"
        "print('none')"
    )
    told = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=False)

    assert "none\n" == told.stdout, told.stderr


def cpu(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("words", [["--help"], ["runs", "--help"], ["runs", "list", "--help"]], ids=" ".join)
def test_a_help_costs_less_than_150_ms_of_a_processor_more_than_an_empty_interpreter(words: list[str]):
    program = f"import sys; sys.argv = ['runclaim', *{words!r}]; from runclaim.cli import main; main()"
    # The best of several: the machine does other things too.
    empty, full = (min(cpu("-c", code) for _ in range(5)) for code in ("pass", program))

    assert full - empty < 0.150


@pytest.mark.parametrize("path, command", EVERY, ids=lambda each: " ".join(each) if isinstance(each, tuple) else "")
def test_the_page_has_every_command_with_its_options(path: tuple[str, ...], command: click.Command):
    """INVARIANT: docs/cli.md and the commands' own help are one. Breaks when an option is on one side only."""
    if not path or isinstance(command, click.Group):
        return
    page = (ROOT / "docs" / "cli.md").read_text()
    section = page.partition(f"\n### `runclaim {' '.join(path)}")[2].partition("\n### ")[0].partition("\n## ")[0]
    shared = page.partition("\n## Where a command looks\n")[2].partition("\n## ")[0]
    options = [
        name for each in command.params if isinstance(each, click.Option) for name in (*each.opts, *each.secondary_opts)
    ]

    assert section, f"docs/cli.md has no section `runclaim {' '.join(path)}`"
    assert [] == [name for name in options if name.startswith("--") and f"`{name}" not in section + shared]


def test_the_page_and_the_help_have_every_exit_code():
    page = (ROOT / "docs" / "cli.md").read_text()
    told = " ".join(runner().invoke(cli.command, ["--help"]).output.split())

    assert [] == [code for code in Exit if f"| {int(code)} |" not in page]
    assert [] == [code for code in range(9) if f"{code} " not in told.partition("Exit codes: ")[2]]


@pytest.mark.parametrize("path, command", EVERY, ids=lambda each: " ".join(each) if isinstance(each, tuple) else "")
def test_what_a_group_says_of_a_command_is_what_the_command_says(path: tuple[str, ...], command: click.Command):
    if not isinstance(command, Lazy):
        return
    for name, (_, text) in command.table.items():
        its = command.get_command(click.Context(command), name)

        assert its is not None
        assert (its.help or "").strip().startswith(text.partition(",")[0].rstrip("."))


def test_every_command_that_gives_data_gives_it_as_json_too():
    leaves = [(path, each) for path, each in EVERY if not isinstance(each, click.Group)]
    without = {path[0] for path, each in leaves if "--json" not in [name for its in each.params for name in its.opts]}

    assert {"worker", "beat", "flower", "api", "dev", "completion"} == without


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(shell: str):
    told = runner().invoke(cli.command, ["completion", shell], prog_name="runclaim")

    assert 0 == told.exit_code
    assert f"_RUNCLAIM_COMPLETE={shell}_complete" in told.stdout


@pytest.mark.parametrize(
    "words, completes",
    [("ru", "runs"), ("runs ca", "cancel"), ("runs list --st", "--state"), ("runs list --state fa", "failed")],
)
def test_commands_options_and_states_are_completed_without_anything_heavy(words: str, completes: str):
    asked = "from runclaim.cli import main; import sys; main()"
    environment = {
        "_RUNCLAIM_COMPLETE": "bash_complete",
        "COMP_WORDS": f"runclaim {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    told = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert f"plain,{completes}" in told.stdout.splitlines(), told


@pytest.mark.parametrize("words, close", [(["rnus"], "runs"), (["runs", "cancle"], "cancel")])
def test_a_mistyped_command_is_told_the_one_that_was_meant(words: list[str], close: str):
    told = runner().invoke(cli.command, words)

    assert 2 == told.exit_code
    assert f"No such command '{words[-1]}'. Did you mean {close}?" in told.stderr
