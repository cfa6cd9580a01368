"""The set-up: what makes it run again, what it says, and that every door to it is the same."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dev

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder that looks like a checkout whose .venv is complete."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(dev, "PYTHON", python)
    monkeypatch.setattr(dev, "STAMP", tmp_path / ".venv" / "stamp.json")
    dev.STAMP.write_text(json.dumps(dev.wanted("test")))
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("profile", ["test", "demo"])
def test_a_complete_set_up_is_not_done_again(checkout, profile, capsys):
    dev.set_up(profile)

    assert "" == capsys.readouterr().out


@pytest.mark.parametrize(
    "name,old,new,matters",
    [
        ("constraints.txt", "celery==", "celery==999.", True),
        ("pyproject.toml", "celery>=5.5", "celery>=5.6", True),
        ("pyproject.toml", "line-length = 120", "line-length = 100", False),
    ],
)
def test_only_what_is_installed_makes_the_set_up_run_again(checkout, name, old, new, matters):
    before = dev.wanted("test")
    edit(checkout / name, old, new)

    assert (dev.wanted("test") != before) == matters


def test_a_checkout_that_moved_is_set_up_again(checkout, monkeypatch):
    monkeypatch.setattr(dev, "VENV", checkout / "elsewhere" / ".venv")

    assert dev.wanted("test")["place"] != dev.stamp()["place"]


@pytest.mark.parametrize("harm", ["no python", "no stamp", "half a stamp"])
def test_a_damaged_environment_is_no_set_up(checkout, harm):
    match harm:
        case "no python":
            dev.PYTHON.unlink()
        case "no stamp":
            dev.STAMP.unlink()
        case "half a stamp":
            dev.STAMP.write_text('{"place": ')

    assert {} == dev.stamp()


def test_a_command_that_fails_shows_its_last_words_and_what_to_do():
    command = [sys.executable, "-c", "print('no route to host'); raise SystemExit(3)"]

    with pytest.raises(dev.Stop) as stopped:
        dev.progress(command, label="installing", fix="plug in the cable")
    message = "runclaim: no route to host\nrunclaim: installing failed (exit status 3).\nFix: plug in the cable"
    assert message == str(stopped.value)


def test_an_old_python_gets_as_far_as_the_message_for_it():
    source = (ROOT / "dev.py").read_text()

    ast.parse(source, feature_version=(3, 7))
    assert source.index("version_info < (3, 11)") < source.index("import tomllib")


def test_no_command_is_answered_with_the_list_of_commands():
    done = subprocess.run([sys.executable, "dev.py"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert 1 == done.returncode
    assert all(f"  {name} " in done.stderr for name in dev.COMMANDS)


def test_make_has_the_commands_of_dev_py_and_help():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+): ##", makefile, flags=re.MULTILINE))

    assert {*dev.COMMANDS, "help"} == targets


def test_every_dependency_is_pinned_without_an_address():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {normal(pin.partition("==")[0]) for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    names = {normal(re.match(r"[\w.-]+", dependency).group()) for dependency in asked} - {"runclaim"}

    assert [] == [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9a-z.]+", pin)]
    assert set() == names - pinned


def test_the_lowest_versions_are_those_that_are_allowed():
    """Breaks when a bound is moved and not its pin. To pin them again: see CONTRIBUTING.md."""
    pins = {}
    for line in (ROOT / "constraints-lowest.txt").read_text().splitlines():
        name, _, version = line.partition(" ;")[0].partition("==")
        pins.setdefault(normal(name), set()).add(version)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    asked += [
        each
        for name in ("api", "postgres", "dev", "flower", "metrics", "otel")
        for each in project["optional-dependencies"][name]
    ]
    bounds = [re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", each) for each in asked]
    wrong = [
        (bound[1], bound[2], pins.get(normal(bound[1])))
        for bound in bounds
        if bound and not any(f"{pin}.".startswith(f"{bound[2]}.") for pin in pins.get(normal(bound[1]), ()))
    ]

    assert [] == wrong


def test_no_upper_bound_keeps_an_application_from_a_newer_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]

    assert [] == [each for each in asked if "<" in each.partition(";")[0] or "==" in each or "~" in each]


@pytest.mark.parametrize(
    "word, folder", [("--lowest", ".venv-lowest"), ("--highest", ".venv-highest"), ("-q", ".venv")]
)
def test_other_versions_have_an_environment_of_their_own(word, folder):
    asked = f"import sys; sys.argv = ['dev.py', 'test', {word!r}]; import dev; print(dev.VENV.name, dev.CONSTRAINTS)"
    told = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)

    held = {"--lowest": "constraints-lowest.txt", "--highest": "None"}.get(word, "constraints.txt")
    assert f"{folder} {held}\n" == told.stdout


@pytest.mark.parametrize("answers, status", [(True, 1), (False, dev.NO_INDEX)])
def test_an_index_that_does_not_answer_is_told_from_packages_that_do_not_fit(monkeypatch, answers, status):
    monkeypatch.setattr(dev, "index_answers", lambda: answers)
    failing = [sys.executable, "-c", "print('no version fits'); raise SystemExit(3)"]

    with pytest.raises(SystemExit) as stopped:
        dev.install(failing, label="installing")
    assert status == (1 if isinstance(stopped.value.code, str) else stopped.value.code)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
