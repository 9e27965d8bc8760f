"""What a rebuild keeps while it runs: a scratch pad that does not grow in memory, and a record that says where it is."""

from contextlib import closing
from pathlib import Path

import pytest

from projections import scratch
from projections.generations import Succession
from projections.scratch import Scratch


def test_what_is_compared_lies_on_disk_beyond_a_cache_of_fixed_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "CACHE_KIB", 64)
    with closing(Scratch()) as pad:
        one, other = pad.digests("one"), pad.digests("other")
        for n in range(0, 20_000, 500):
            rows = [(f"row {m}", b"%016d" % m) for m in range(n, n + 500)]
            one.put(rows)
            other.put(rows)
        assert bytes_of_deleted_files() > 1 << 20
        other["row 7"], other["more"] = b"else", b"more"
        del other["row 8"]
        assert [sorted(names) for names in pad.differing("one", "other")] == [["more", "row 7", "row 8"]]


def bytes_of_deleted_files() -> int:
    """Of those that this process has open."""
    named = [(file, file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    return sum(file.stat().st_size for file, target in named if "(deleted)" in str(target))


def test_a_succession_is_read_as_it_was_written_and_holds_two_generations_at_most() -> None:
    building = Succession(turn=4).begun(5)
    live = building.switched(1, accepted="because")
    next_one = live.begun(6)
    assert (live.previous, live.building, next_one.doomed) == (1, 0, (1,))
    assert Succession.load(next_one.dump()) == next_one
    assert [one.turn for one in (building, live, next_one)] == [5, 6, 7]
