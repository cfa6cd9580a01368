"""The folder of local records: what somebody else could have put there is no record, and nothing outside is touched."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pytest

from runclaim.errors import InputError
from runclaim.flows.fail_open import local_records
from runclaim.flows.fail_open.local_records import LocalRecord, LocalRecords

if TYPE_CHECKING:
    from pathlib import Path

ID, OTHER = "0195c0de-0000-7000-8000-000000000007", "0195c0de-0000-7000-8000-000000000008"
RECORD = LocalRecord(
    ledger="0" * 16, flow="review", run_id=ID, phase="plan", fence=0, owner="o", worker="w", carried={}, opened=1
)


@pytest.fixture
def records(tmp_path: Path) -> LocalRecords:
    made = LocalRecords(tmp_path / "records")
    made.write(RECORD)
    return made


def place(records: LocalRecords) -> Path:
    return records.folder / f"{ID}.json"


def test_a_record_is_read_as_it_was_written(records: LocalRecords):
    assert (RECORD, [RECORD], None) == (records.read(ID), list(records.all()), records.read(OTHER))
    assert 0o600 == stat.S_IMODE(place(records).stat().st_mode)


@pytest.mark.parametrize("run_id", ["../x", "/x", "/../x", "a/b", "x\0", "x" * 300, "", ".", ID.upper(), f"{{{ID}}}"])
def test_a_text_that_could_name_another_place_is_no_name_of_a_record(records: LocalRecords, run_id: str):
    """
    INVARIANT: nothing outside the folder is read, replaced or renamed, whoever made up the id.

    Breaks if a path is put together from an id that nobody checked.
    """
    strange = replace(RECORD, run_id=run_id)
    for touch in (lambda: records.read(run_id), lambda: records.write(strange), lambda: records.set_aside(strange)):
        with pytest.raises(InputError, match="run_id"):
            touch()

    assert [".lock", f"{ID}.json"] == sorted(path.name for path in records.folder.iterdir())


def test_a_record_of_another_run_than_its_name_says_is_none(records: LocalRecords, caplog):
    (records.folder / f"{OTHER}.json").write_text(json.dumps(asdict(RECORD)))
    (records.folder / "lab.json").write_text(json.dumps(asdict(replace(RECORD, run_id="lab"))))

    assert (None, [RECORD]) == (records.read(OTHER), list(records.all()))
    assert 3 == caplog.text.count("is not a local record; a person has to look at it")


def test_a_link_to_a_record_is_none(records: LocalRecords, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere.json"
    place(records).rename(elsewhere)
    place(records).symlink_to(elsewhere)

    assert records.read(ID) is None


def test_a_pipe_in_the_place_of_a_record_holds_up_nobody(records: LocalRecords):
    place(records).unlink()
    os.mkfifo(place(records))

    assert records.read(ID) is None


def test_what_comes_out_of_a_pipe_is_no_record(records: LocalRecords):
    text = place(records).read_bytes()
    place(records).unlink()
    os.mkfifo(place(records))
    pipe = os.open(place(records), os.O_RDWR)
    try:
        os.write(pipe, text)

        assert records.read(ID) is None
    finally:
        os.close(pipe)


def test_a_record_that_was_replaced_since_it_was_read_is_not_forgotten(records: LocalRecords):
    """Breaks if it goes by its name: a result that another process has just written down would be lost."""
    newer = replace(RECORD, opened=2)
    records.write(newer)
    records.remove(RECORD)

    assert records.read(ID) == newer


def test_a_folder_that_was_there_is_closed_to_others(records: LocalRecords):
    records.folder.chmod(0o755)
    records.write(RECORD)

    assert 0o700 == stat.S_IMODE(records.folder.stat().st_mode)


def test_a_file_of_another_user_is_no_record(records: LocalRecords, monkeypatch: pytest.MonkeyPatch, caplog):
    """Of two users only root could make the file, so here it is the reader that becomes another."""
    monkeypatch.setattr(local_records.os, "geteuid", lambda: place(records).stat().st_uid + 1)

    assert records.read(ID) is None
    assert "not a regular file of this user" in caplog.text


def test_the_lock_follows_no_link_and_empties_no_file(records: LocalRecords, tmp_path: Path):
    """
    INVARIANT: to keep a record harms no file that somebody has linked to.

    Breaks if the lock is opened for writing by its name alone.
    """
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (records.folder / ".lock").unlink()
    (records.folder / ".lock").symlink_to(victim)
    with pytest.raises(OSError, match=r"\.lock"):
        records.write(replace(RECORD, opened=2))

    assert ("precious", RECORD) == (victim.read_text(), records.read(ID))
    assert [".lock", f"{ID}.json"] == sorted(path.name for path in records.folder.iterdir())


def test_a_lock_that_is_there_is_not_emptied(records: LocalRecords):
    (records.folder / ".lock").write_text("held")
    records.write(replace(RECORD, opened=2))

    assert ("held", 2) == ((records.folder / ".lock").read_text(), records.read(ID).opened)
