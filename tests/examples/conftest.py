"""A forge for a test, and a clone with commits in it."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from forge.server import Forge
from forge.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def forge_file(tmp_path: Path) -> Path:
    """Where the forge keeps its comments."""
    return tmp_path / "forge.db"


@pytest.fixture
def forge(forge_file: Path) -> Iterator[Forge]:
    """A forge that serves, and behaves until it is told otherwise."""
    store = Store(forge_file)
    with Forge(store) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()
    store.close()


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three commits; the second adds two lines and takes one."""
    folder = tmp_path_factory.mktemp("clone")
    git(folder, "init", "--quiet", "--initial-branch=main")
    for number, source in enumerate(("import os\n", "import sys\n\n", "print(nobody)\n")):
        (folder / "module.py").write_text(source)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "-m", f"change {number}\n\nand why")
    return folder


def git(folder: Path, *words: str) -> str:
    """What git says; no setting of this machine has a say."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in WHO.items()}
    environment = os.environ | who | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(["git", "-C", folder, *words], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


WHO = {"NAME": "Ada", "EMAIL": "ada@example.org", "DATE": "2026-01-02T03:04:05+00:00"}
