"""
One command from a fresh checkout to the demo, the tests or the checks.

    python3 dev.py setup | test [pytest's arguments] | check | demo [arguments] | bench [arguments] |
                   growth [arguments] | slots [arguments] | many [arguments] | mutants [arguments] | previous | docs |
                   build | lock | fix | clean

With --lowest or --highest a command runs on the lowest or the highest versions that pyproject.toml allows, in a virtual
environment of their own: `python3 dev.py test --lowest tests/ledger`.

Standard library only, and nothing is installed outside this folder: packages go into .venv, so a system Python that
refuses them (PEP 668) does not mind. Each command says what it chose and how long it took.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever meets this line has an older Python
    sys.exit(f"runclaim needs Python 3.11 or newer; this is {sys.version.split()[0]}.\n"
             "Fix: run dev.py with a newer one, for example `python3.11 dev.py test`.")  # fmt: skip

import contextlib
import fcntl
import getpass
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
import tomllib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
#: Beside the pinned versions: where the others are, and what holds them there.
RESOLUTIONS = {"--lowest": "constraints-lowest.txt", "--highest": None}
RESOLUTION = next((word for word in sys.argv[1:] if word in RESOLUTIONS), "")
CONSTRAINTS = RESOLUTIONS[RESOLUTION] if RESOLUTION else "constraints.txt"
VENV = ROOT / (".venv" + RESOLUTION[1:])
PYTHON = VENV / "bin" / "python"
CACHE = ROOT / ".cache"
STAMP = VENV / "runclaim-stamp.json"

#: What each command installs.
EXTRAS = {"demo": "dev,postgres,redis", "test": "test", "docs": "docs", "release": "dev,redis,release"}
#: The profiles whose packages are enough for each.
ENOUGH = {"demo": ("demo", "test"), "test": ("test",), "docs": ("docs",), "release": ("release",)}
#: What is asked of an index to see whether it answers, and the exit status of a set-up where none does.
PROBE, NO_INDEX = "vine", 75
LEFT_BY_TOOLS = (".mypy_cache", ".pytest_cache", ".ruff_cache", ".import_linter_cache", ".hypothesis", "build", "dist")


class Stop(SystemExit):
    """The end of a command that cannot go on: what happened, and what to do about it."""

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(f"runclaim: {what}\nFix: {fix}")


def say(text: str) -> None:
    """Tell the person who waits."""
    print(f"runclaim: {text}", flush=True)


def set_up(profile: str) -> None:
    """
    A virtual environment in .venv that has what `profile` needs; at once if it is there already.

    Two set-ups of one folder wait for each other. A folder that was moved or copied, another Python, and changed
    dependencies are all noticed by the stamp.
    """
    with one_at_a_time():
        if any(wanted(enough).items() <= stamp().items() for enough in ENOUGH[profile]):
            return
        if not os.access(VENV if VENV.exists() else ROOT, os.W_OK):
            copy = Path.home() / ROOT.name
            raise Stop(
                f"{ROOT} is not writable for {getpass.getuser()}, and .venv must be created there.",
                fix=f"work in a copy of your own: cp -r '{ROOT}' '{copy}'; rm -rf '{copy}/.venv'; cd '{copy}'",
            )
        started = time.monotonic()
        put_in = installer()
        for label, words in packages(profile).items():
            install([*put_in, *words], label=label)
        STAMP.write_text(json.dumps(stamp() | wanted(profile)))
        say(f"set up in {time.monotonic() - started:.1f} s; it stays in {VENV.name}, so the next time takes none")


def install(command: list[str], *, label: str) -> None:
    """Install packages. Raises: Stop; with the exit status NO_INDEX where it is the index that does not answer."""
    fix = "the lines above say why. No network? PIP_INDEX_URL and UV_INDEX_URL name a mirror. Then run it again"
    try:
        progress(command, label=label, fix=fix)
    except Stop as stop:
        if index_answers():
            raise
        print(stop, file=sys.stderr)
        sys.exit(NO_INDEX)


def index_answers() -> bool:
    """Whether packages can be had at all: asked for one that everything here needs, past every cache."""
    uv = shutil.which("uv") or str(CACHE / "tools" / "bin" / "uv")
    pip = [str(PYTHON), "-m", "pip", "download", "--no-cache-dir", "--no-deps", "--dest", str(CACHE / "probe"), PROBE]
    with_uv = [uv, "pip", "install", "--python", str(PYTHON), "--no-cache", "--no-deps", "--reinstall", "--dry-run"]
    command = [*with_uv, PROBE] if Path(uv).exists() else pip
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def packages(profile: str) -> dict[str, list[str]]:
    """What the installer is told, in this order: the lock's packages by their hashes, then this checkout alone."""
    if RESOLUTION:
        held = ["-c", CONSTRAINTS] if CONSTRAINTS else ["--upgrade"]
        return {f"installing .[{EXTRAS[profile]}]": [*held, "-e", f".[{EXTRAS[profile]}]"]}
    lock = f"locks/{profile}.txt"
    return {
        f"installing {lock}": ["--require-hashes", "-r", lock],
        # The lock has what builds it, so nothing else is fetched for that.
        "installing runclaim": ["--no-deps", "--no-build-isolation", "-e", "."],
    }


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold this folder's set-up lock."""
    with (ROOT / "pyproject.toml").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this folder to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wanted(profile: str) -> dict[str, str]:
    """The stamp of an environment that is made here, for this Python, with these dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # The highest are looked for again each day.
    held = (ROOT / CONSTRAINTS).read_text() if CONSTRAINTS else time.strftime("%Y-%m-%d")
    parts = [project["build-system"], project["project"], held, EXTRAS[profile]]
    place = f"{VENV} on {sys.base_prefix} {platform.python_version()}"
    return {"place": place, profile: hashlib.sha256(json.dumps(parts).encode()).hexdigest()}


def stamp() -> dict[str, str]:
    """What the environment says it is; nothing if there is none that runs."""
    try:
        found: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return found if os.access(PYTHON, os.X_OK) else {}


def installer() -> list[str]:
    """The command that installs packages into .venv, which is made first where there is none for this Python."""
    python, uv = sys.executable, shutil.which("uv")
    if sys.prefix != sys.base_prefix:  # started inside a virtual environment, perhaps the very one we replace
        python = str(Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info)))
    if stamp().get("place") != wanted("test")["place"]:
        if VENV.exists():
            say(f"the {VENV.name} here is another Python's, another folder's or of a set-up cut short: making it again")
            shutil.rmtree(VENV)
        say(f"making {VENV.name} for Python {platform.python_version()}")
        if uv or not made_by_venv(python):
            uv = uv or fetched_uv(python)
            progress(
                [uv, "venv", "--python", python, str(VENV)], label=f"making {VENV.name}", fix="the lines above say why"
            )
        # From here on, a set-up that is cut short goes on where it was.
        STAMP.write_text(json.dumps({"place": wanted("test")["place"]}))
    if uv or not (VENV / "bin" / "pip").exists():
        uv = uv or fetched_uv(python)
        say(f"packages by uv ({uv})")
        return [uv, "pip", "install", "--python", str(PYTHON)]
    say("packages by pip, the first time about half a minute (some seconds with uv on PATH)")
    return [str(PYTHON), "-m", "pip", "install"]


def made_by_venv(python: str) -> bool:
    """Whether `python -m venv` works here; Debian ships it in a package of its own."""
    done = subprocess.run([python, "-m", "venv", str(VENV)], capture_output=True, check=False)
    if done.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
    return done.returncode == 0


def fetched_uv(python: str) -> str:
    """The path of uv, put beside the project by pip, which even an externally managed Python allows."""
    uv = CACHE / "tools" / "bin" / "uv"
    if not uv.exists():
        fix = "sudo apt-get install python3-venv   (or install uv), then run this again"
        if subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
            raise Stop("this Python has neither venv nor pip, and there is no uv on PATH.", fix=fix)
        words = ["--require-hashes", "--target", str(uv.parents[1]), "-r", "locks/uv.txt"]
        progress([python, "-m", "pip", "install", *words], label="fetching uv", fix=fix)
    return str(uv)


def progress(command: list[str], *, label: str, fix: str) -> None:
    """Run `command` under one moving line (a line every few seconds off a terminal); its words only if it fails."""
    started = told = time.monotonic()
    doing, last = "", deque[str](maxlen=25)
    env = os.environ | {"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, **pipes) as process:
        for line in process.stdout or ():
            last.append(line.rstrip())
            now = time.monotonic()
            doing = line.strip() if line.lstrip().startswith(("Collecting", "Downloading", "Installing")) else doing
            text = f"{label}, {now - started:.0f} s: {doing}"
            if sys.stdout.isatty():
                print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
            elif now > told + 10:
                told = now
                say(text[:120])
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    if process.returncode:
        raise Stop("\n".join([*last, f"runclaim: {label} failed (exit status {process.returncode})."]), fix=fix)
    say(f"{label}: {time.monotonic() - started:.1f} s")


def setup(_arguments: list[str]) -> None:
    """Make .venv with everything; the other commands do it when they need it."""
    set_up("test")
    say(f"ready: {PYTHON}")


def test(arguments: list[str]) -> None:
    """Run the suite on real servers; arguments go to pytest."""
    set_up("test")
    os.chdir(ROOT)
    own = any(argument.startswith(("-n", "--numprocesses", "--pdb", "no:xdist")) for argument in arguments)
    # Most tests wait for servers and workers, so there are twice as many processes as cores.
    spread = [] if own else ["-n", str(min(2 * (os.cpu_count() or 1), 8)), "--dist", "worksteal"]
    become([str(PYTHON), "-m", "pytest", *spread, *arguments])


def check(_arguments: list[str]) -> None:
    """Run ruff, mypy --strict and import-linter."""
    set_up("test")
    failed = []
    for command in ("ruff check .", "ruff format --check .", "mypy", "lint-imports --no-logo"):
        started = time.monotonic()
        tool, *arguments = command.split()
        done = subprocess.run([PYTHON.parent / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        say(f"{'FAILED' if done.returncode else 'ok'} {command}, {time.monotonic() - started:.1f} s")
        if done.returncode:
            failed.append(tool)
            print(done.stdout + done.stderr, flush=True)
    if failed:
        raise Stop(
            f"{', '.join(failed)} did not pass.",
            fix="`python3 dev.py fix` corrects style; see the output above for the rest",
        )


def demo(arguments: list[str]) -> None:
    """Review real commits under faults; arguments go to examples/review/demo.py."""
    script = ROOT / "examples" / "review" / "demo.py"
    if not script.exists():
        raise Stop(f"there is no demo in this checkout ({script} is missing).", fix="git pull")
    set_up("demo")
    become([str(PYTHON), str(script), *arguments])


def bench(arguments: list[str]) -> None:
    """Measure runclaim, bare Celery and others in turn; arguments go to benchmarks (--rounds, --sides, --write)."""
    become_module("test", "benchmarks", arguments)


def growth(arguments: list[str]) -> None:
    """Measure the ledger's verbs as its history grows; arguments go to benchmarks/growth.py (--rows, --write)."""
    become_module("test", "benchmarks.growth", arguments)


def slots(arguments: list[str]) -> None:
    """Measure pools of one to eight processes, one worker and two; arguments go to benchmarks/slots.py (--rounds)."""
    become_module("test", "benchmarks.slots", arguments)


def many(arguments: list[str]) -> None:
    """Measure what many workers do to one database; arguments go to benchmarks/many.py (--parts, --rounds)."""
    become_module("test", "benchmarks.many", arguments)


def mutants(arguments: list[str]) -> None:
    """Show changes of the code that no test notices; arguments go to mutants (--files, --sample, --seed, --jobs)."""
    become_module("test", "mutants", arguments)


def previous(arguments: list[str]) -> None:
    """Run the acceptance tests of the previous release on the tables of this one, and a fleet of both."""
    become_module("test", "previous", arguments)


def docs(_arguments: list[str]) -> None:
    """Build the documentation into build/site, and renew what is made from it."""
    become_module("docs", "website", [])


def build(_arguments: list[str]) -> None:
    """Make the packages in dist/, check them, list what they need, and run the README's module on the wheel alone."""
    become_module("release", "release", ["build"])


def lock(_arguments: list[str]) -> None:
    """Renew the locks and the page of licences, after a change of constraints.txt or of the dependencies."""
    os.chdir(ROOT)
    become([sys.executable, "-m", "release", "lock"])


def fix(_arguments: list[str]) -> None:
    """Let ruff fix and format the code."""
    set_up("test")
    for arguments in (["check", "--fix"], ["format"]):
        subprocess.run([PYTHON.parent / "ruff", *arguments, "."], cwd=ROOT, check=False)


def clean(_arguments: list[str]) -> None:
    """Remove .venv, those of other versions, and every cache of this folder."""
    for gone in (
        *(ROOT / f".venv{word[1:]}" for word in ("", *RESOLUTIONS)),
        CACHE,
        *(ROOT / name for name in LEFT_BY_TOOLS),
    ):
        if gone.exists():
            shutil.rmtree(gone)
            say(f"removed {gone.relative_to(ROOT)}")


def become_module(profile: str, module: str, arguments: list[str]) -> None:
    """Go on as a module of this repository, in an environment that has what it needs."""
    set_up(profile)
    os.chdir(ROOT)
    become([str(PYTHON), "-m", module, *arguments])


def become(command: list[str]) -> None:
    """Go on as `command`, so that Ctrl-C and the exit status are its own."""
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    c.__name__: c
    for c in (setup, test, check, demo, bench, growth, slots, many, mutants, previous, docs, build, lock, fix, clean)
}

if __name__ == "__main__":
    chosen, *rest = sys.argv[1:] or [""]
    if chosen not in COMMANDS:
        print("Usage: python3 dev.py COMMAND [arguments]\n", file=sys.stderr)
        sys.exit("\n".join(f"  {name:8} {command.__doc__}" for name, command in COMMANDS.items()))
    with contextlib.suppress(KeyboardInterrupt):
        COMMANDS[chosen]([word for word in rest if word != RESOLUTION])
        sys.exit()
    sys.exit(130)
