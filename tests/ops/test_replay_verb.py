"""`./daybook replay` on a log in memory: what lies in its file when it ends, however it ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from ops import replay
from ops.replay import NOTHING_FOUND, Asked
from ops.settings import from_environment
from ops.telling import as_line
from projections.view import Recorded
from streams.replay import Query, ReplayFailed
from tests.in_memory_shop import Shop
from tests.replayed import TOPICS, WrittenLog, log_of

EVENTS = tuple(map(TOPICS.events, ("catalog", "cart", "order", "inventory", "payment")))
EVERYTHING = Query(EVENTS)
NOTHING = Query(EVENTS, key="TYPO")


@pytest.fixture(scope="module")
def log() -> WrittenLog:
    """Six lamps, of which Anna buys two: some fifteen events, in portions of five."""
    shop = Shop()
    shop.receive("85123A", 6)
    shop.check_out("one", "anna", {"85123A": 2})
    shop.quiesce()
    return log_of(shop)


def tell(
    log: WrittenLog,
    output: Path,
    query: Query = EVERYTHING,
    resume: Path | None = None,
    *,
    follow: bool = False,
) -> None:
    Asked(query, "jsonl", output, resume, follow)._tell(log.replay(query))


def test_who_follows_and_is_interrupted_in_a_portion_misses_nothing_and_has_nothing_twice(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told = 0

    def seven_then_ctrl_c(record: Recorded) -> bytes:
        nonlocal told
        told += 1
        if told > 7:
            raise KeyboardInterrupt
        return as_line(record)

    kept = tmp_path / "kept"
    with monkeypatch.context() as patched:
        patched.setitem(replay.FORMATS, "jsonl", seven_then_ctrl_c)
        tell(log, tmp_path / "first", resume=kept, follow=True)
    tell(log, tmp_path / "second", resume=kept)

    assert len(places(tmp_path / "first")) == 5
    assert places(tmp_path / "first") + places(tmp_path / "second") == [one[:3] for one in log.records]


@pytest.mark.parametrize("bounded", [Query(EVENTS, last=7), Query(EVENTS, until=7)])
def test_who_follows_names_no_end(bounded: Query):
    with pytest.raises(ValueError, match="--follow goes on until Ctrl-C, and --to says where to end"):
        Asked(bounded, "jsonl", None, None, follow=True)


@pytest.mark.parametrize("resume", [None, "kept"])
def test_of_nothing_there_is_no_file(log: WrittenLog, tmp_path: Path, resume: str | None):
    with pytest.raises(ReplayFailed, match=NOTHING_FOUND):
        tell(log, tmp_path / "told", NOTHING, tmp_path / resume if resume else None)
    assert list(tmp_path.iterdir()) == []


def test_who_follows_or_goes_on_may_find_nothing(log: WrittenLog, tmp_path: Path):
    tell(log, tmp_path / "followed", NOTHING, follow=True)
    tell(log, tmp_path / "whole", resume=tmp_path / "kept")
    tell(log, tmp_path / "new", resume=tmp_path / "kept")
    assert [places(tmp_path / name) for name in ("followed", "new")] == [[], []]


def test_of_nothing_there_is_no_export(log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(WrittenLog, "identity", lambda *_: "a log", raising=False)
    directory, here = tmp_path / "winter", from_environment({})
    in_memory: Any = log
    with pytest.raises(ReplayFailed, match=NOTHING_FOUND):
        Asked(NOTHING, "parquet", directory, None, follow=False).run(in_memory, here)
    assert not directory.exists()


def places(file: Path) -> list[tuple[str, int, int]]:
    lines = map(json.loads, file.read_text().splitlines())
    return [(line["topic"], line["partition"], line["offset"]) for line in lines]
