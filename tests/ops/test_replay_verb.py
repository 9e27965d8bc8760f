"""`./daybook replay` on a log in memory: what lies in its file when it ends, however it ends."""

import json
from pathlib import Path

import pytest

from ops import replay
from ops.replay import Asked
from ops.telling import as_line
from projections.view import Recorded
from streams.replay import Query
from tests.in_memory_shop import Shop
from tests.replayed import TOPICS, WrittenLog, log_of

EVENTS = tuple(map(TOPICS.events, ("catalog", "cart", "order", "inventory", "payment")))


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
    query: Query = Query(EVENTS),  # noqa: B008  # frozen
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


@pytest.mark.parametrize("last", [{"last": 7}, {"until": 7}])
def test_who_follows_names_no_end(last: dict[str, int]):
    with pytest.raises(ValueError, match="--follow goes on until Ctrl-C, and --to says where to end"):
        Asked(Query(EVENTS, **last), "jsonl", None, None, follow=True)


def places(file: Path) -> list[tuple[str, int, int]]:
    lines = map(json.loads, file.read_text().splitlines())
    return [(line["topic"], line["partition"], line["offset"]) for line in lines]
