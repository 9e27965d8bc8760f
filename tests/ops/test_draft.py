"""A file that is whole or not there, and that a killed writer goes on with, byte by byte."""

import errno
import json
import os
from pathlib import Path

import pytest

from ops.draft import Draft, DraftFailed

AT_3, AT_5 = {("t.events.cart", 0): 3}, {("t.events.cart", 0): 5}


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    told = tmp_path / "told"
    with Draft(told, None, "all") as draft:
        draft.write(b"one\n")
        assert not told.exists()
    assert told.read_bytes() == b"one\n"
    assert names(tmp_path) == {"told"}


@pytest.mark.parametrize("why", [KeyboardInterrupt(), ValueError("a bug")])
def test_what_is_not_finished_leaves_nothing(tmp_path: Path, why: BaseException):
    def begin_and_fail() -> None:
        with Draft(tmp_path / "told", None, "all") as draft:
            draft.write(b"one\n")
            raise why

    with pytest.raises(type(why)):
        begin_and_fail()
    assert names(tmp_path) == set()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with (
            pytest.raises(DraftFailed, match="told was not written: no space is left on the disk"),
            Draft(tmp_path / "told", None, "all") as draft,
        ):
            draft.write(b"one\n")
    assert not (tmp_path / "told").exists()


def test_a_directory_that_there_is_not_is_named(tmp_path: Path):
    with (
        pytest.raises(DraftFailed, match="No such file or directory"),
        Draft(tmp_path / "no" / "told", None, "all"),
    ):
        pass


def test_an_interrupted_file_goes_on_where_its_position_is(tmp_path: Path):
    told, kept = tmp_path / "told", tmp_path / "kept"

    def begin_and_be_interrupted() -> None:
        with Draft(told, kept, "all") as draft:
            draft.write(b"one\n")
            draft.reached(AT_3)
            draft.write(b"two, of which nobody knows the position\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin_and_be_interrupted()
    assert names(tmp_path) == {"told.part", "kept"}
    with Draft(told, kept, "all") as draft:
        assert draft.positions == AT_3
        draft.write(b"two\n")
        draft.reached(AT_5)

    assert told.read_bytes() == b"one\ntwo\n"
    assert json.loads(kept.read_text())["next"] == {"t.events.cart[0]": 5}


def test_a_file_that_is_cut_holds_what_its_position_covers(tmp_path: Path):
    told, kept = tmp_path / "told", tmp_path / "kept"
    with Draft(told, kept, "all") as draft:
        draft.write(b"one\n")
        draft.reached(AT_3)
        draft.write(b"two, of which nobody knows the position\n")
        draft.cut()
    assert told.read_bytes() == b"one\n"
    assert json.loads(kept.read_text())["next"] == {"t.events.cart[0]": 3}


def test_whoever_goes_on_and_stops_at_once_has_what_there_was(tmp_path: Path):
    told, kept = tmp_path / "told", tmp_path / "kept"
    killed = Draft(told, kept, "all").__enter__()
    killed.write(b"one\n")
    killed.reached(AT_3, flush=True)
    killed._file.close()

    with Draft(told, kept, "all") as draft:
        draft.write(b"two, of which nobody knows the position\n")
        draft.cut()
    assert told.read_bytes() == b"one\n"
    with Draft(tmp_path / "more", kept, "all") as draft:
        assert draft.positions == AT_3


def test_whoever_was_killed_goes_on_at_what_was_kept_last(tmp_path: Path):
    told, kept = tmp_path / "told", tmp_path / "kept"
    killed = Draft(told, kept, "all").__enter__()
    killed.write(b"one\n")
    killed.reached(AT_3, flush=True)
    killed.write(b"two\n")
    killed.reached(AT_5)  # kept within a second, not at once
    killed._file.flush()

    with Draft(told, kept, "all") as draft:
        assert draft.positions == AT_3
        draft.write(b"two\n")
    assert told.read_bytes() == b"one\ntwo\n"
    killed._file.close()


def test_what_follows_a_whole_file_needs_another_name(tmp_path: Path):
    told, kept = tmp_path / "told", tmp_path / "kept"
    with Draft(told, kept, "all") as draft:
        draft.reached(AT_3)
    with pytest.raises(DraftFailed, match="is there already"), Draft(told, kept, "all"):
        pass
    with Draft(tmp_path / "more", kept, "all") as draft:
        assert draft.positions == AT_3


@pytest.mark.parametrize(
    ("said", "why"),
    [("{", "nothing that one could go on from"), ("[]", "nothing"), ('{"next": {}}', "nothing")],
)
def test_a_position_that_says_nothing_is_named(tmp_path: Path, said: str, why: str):
    (tmp_path / "kept").write_text(said)
    with pytest.raises(DraftFailed, match=why), Draft(None, tmp_path / "kept", "all"):
        pass


def test_a_position_of_another_question_is_refused(tmp_path: Path):
    with Draft(tmp_path / "told", tmp_path / "kept", "all") as draft:
        draft.reached(AT_3)
    with (
        pytest.raises(DraftFailed, match="belongs to another question"),
        Draft(tmp_path / "more", tmp_path / "kept", "cats"),
    ):
        pass


def names(directory: Path) -> set[str]:
    return {each.name for each in directory.iterdir()}
