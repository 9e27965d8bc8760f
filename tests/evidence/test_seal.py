"""A seal never contradicts the one before it, and whoever watches it is not shown two histories."""

from pathlib import Path

import pytest

from ops.evidence.checkpoint import COSIGNATURE, Checkpoint, Note, PrivateKey, Submission, sealed, split
from ops.evidence.merkle import HASH_BYTES, Frontier, leaf_hash, verify_consistency
from ops.evidence.seal import RECORDS, SECONDS, LogChanged, Seal
from ops.evidence.tree_file import place_of
from ops.evidence.witness import Refused, Witness

KEY = PrivateKey.generate("shop.example")
ORIGIN = "shop.example/daybook.events.inventory/0"
LOG = [b"record %d" % n for n in range(3_000)]


def opened(folder: Path, published: Submission | None = None) -> Seal:
    return Seal(folder, ORIGIN, KEY, published)


def root_of(values: list[bytes]) -> bytes:
    tree = Frontier()
    for value in values:
        tree.append(leaf_hash(value))
    return tree.root()


def sealed_up_to(folder: Path, *sizes: int) -> list[Submission]:
    seal, submissions = opened(folder), []
    for size in sizes:
        seal.append(LOG[seal.size : size], size, 0.0)
        submissions.append(seal.sign())
    seal.close()
    return submissions


def test_it_is_signed_after_ten_seconds_or_a_thousand_records_and_only_if_there_is_something_new(
    tmp_path: Path,
):
    seal = opened(tmp_path)
    assert not seal.due(1e9)
    seal.append(LOG[:1], 1, now=100.0)
    assert not seal.due(100.0 + SECONDS - 0.1)
    assert seal.due(100.0 + SECONDS)
    seal.append(LOG[1:RECORDS], RECORDS, now=101.0)
    assert seal.due(101.0)
    seal.sign()
    assert not seal.due(1e9)
    seal.close()


def test_each_checkpoint_comes_with_the_proof_that_it_grew(tmp_path: Path):
    first, second = sealed_up_to(tmp_path, 700, 1_900)
    one, two = Checkpoint.of(first.note), Checkpoint.of(second.note)
    assert (first.old, second.old, two.root) == (0, 700, root_of(LOG[:1_900]))
    verify_consistency(one.size, two.size, one.root, two.root, second.proof)
    second.note.verify(KEY.public)
    assert (tmp_path / "checkpoints").read_text() == f"{first}{second}"


def test_it_goes_on_where_it_was(tmp_path: Path):
    sealed_up_to(tmp_path, 700)
    again = opened(tmp_path)
    assert (again.size, again.next, again.unsealed) == (700, 700, 0)
    again.append(LOG[700:900], 900, 0.0)
    assert Checkpoint.of(again.sign().note).root == root_of(LOG[:900])
    again.close()


@pytest.mark.parametrize("lost", ["tree", "position"])
def test_a_tree_that_is_lost_is_read_anew_and_not_signed_before_it_is_as_long_as_the_last(
    tmp_path: Path, lost: str
):
    sealed_up_to(tmp_path, 700)
    (tmp_path / lost).unlink()
    again = opened(tmp_path)
    assert (again.size, again.next, again.unsealed) == (0, 0, -700)
    again.append(LOG[:500], 500, 0.0)
    assert not again.due(1e9)
    again.append(LOG[500:800], 800, 0.0)
    assert again.sign().old == 700
    again.close()


def test_a_damaged_tree_is_read_anew(tmp_path: Path):
    sealed_up_to(tmp_path, 700)
    tree = bytearray((tmp_path / "tree").read_bytes())
    tree[-1] ^= 1
    (tmp_path / "tree").write_bytes(tree)
    again = opened(tmp_path)
    assert again.next == 0
    again.close()


def test_a_tree_damaged_while_it_is_open_is_doubted_before_the_log_is(tmp_path: Path):
    sealed_up_to(tmp_path, 700)
    seal = opened(tmp_path)
    seal.append(LOG[700:800], 800, 0.0)
    with (tmp_path / "tree").open("r+b") as file:
        file.seek(HASH_BYTES * place_of(9, 0))  # the subtree over the first 512 leaves
        file.write(bytes(HASH_BYTES))
    with pytest.raises(LogChanged):
        seal.sign()
    assert (seal.size, seal.next) == (0, 0)
    seal.append(LOG[:800], 800, 0.0)
    assert Checkpoint.of(seal.sign().note).root == root_of(LOG[:800])
    seal.close()


def test_a_log_that_says_something_else_is_not_signed(tmp_path: Path):
    sealed_up_to(tmp_path, 700)
    (tmp_path / "tree").unlink()
    again = opened(tmp_path)
    again.append([*LOG[:3], b"never was", *LOG[4:800]], 800, 0.0)
    with pytest.raises(LogChanged, match="does not lead to the root of 700 leaves"):
        again.sign()
    assert again.last is not None
    assert Checkpoint.of(again.last.note).size == 700
    again.close()


def test_the_last_checkpoint_is_remembered_by_the_topic_where_the_folder_is_lost(tmp_path: Path):
    (published,) = sealed_up_to(tmp_path / "lost", 700)
    again = opened(tmp_path / "new", published)
    again.append([b"never was", *LOG[1:800]], 800, 0.0)
    with pytest.raises(LogChanged):
        again.sign()
    again.close()
    forged = sealed(Checkpoint(ORIGIN, 5_000, bytes(32)), 0, (), PrivateKey.generate("shop.example"))
    assert opened_and_closed(tmp_path / "third", forged).last is None


def opened_and_closed(folder: Path, published: Submission) -> Seal:
    seal = opened(folder, published)
    seal.close()
    return seal


def test_a_checkpoint_that_a_crash_left_half_written_is_passed_over(tmp_path: Path):
    first, second = sealed_up_to(tmp_path, 700, 900)
    (tmp_path / "checkpoints").write_text(f"{first}{str(second)[:-20]}")
    again = opened(tmp_path)
    assert again.last == first
    again.close()
    assert len(split(f"{first}{second}")) == 2


TORN = {
    "ol": 2,
    "old 70": 6,
    "its first line": 8,
    "in a dash": -109,
    "in a name": -100,
    "all but its end": -1,
}


@pytest.mark.parametrize("length", TORN.values(), ids=TORN)
def test_what_is_sealed_after_a_crash_in_the_midst_of_a_checkpoint_is_the_last_one_that_is_found(
    tmp_path: Path, length: int
):
    first, second = sealed_up_to(tmp_path, 700, 900)
    (tmp_path / "checkpoints").write_bytes(str(first).encode() + str(second).encode()[:length])
    assert sealed_up_to(tmp_path, 1_000)[0].old == 700
    again = opened(tmp_path, published=first)
    again.close()
    assert again.last is not None
    assert Checkpoint.of(again.last.note).size == 1_000
    assert (tmp_path / "checkpoints").read_text().startswith(str(first))


# The witness.


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    key = PrivateKey.generate("witness.example", COSIGNATURE)
    return Witness(tmp_path / "seen", key, KEY.public, clock=lambda: 1_300_000_000.5)


def submission(size: int, root: bytes, old: int = 0, *proof: bytes) -> Submission:
    return sealed(Checkpoint(ORIGIN, size, root), old, proof, KEY)


def test_a_witness_signs_what_grew_out_of_what_it_saw(witness: Witness, tmp_path: Path):
    first, second = sealed_up_to(tmp_path / "seal", 700, 1_900)
    witness.consider(first)
    note = witness.consider(second)
    assert note.verify(witness.key.public) == 1_300_000_000
    note.verify(KEY.public)
    assert witness.seen(ORIGIN) == Checkpoint.of(second.note)
    assert str(witness.consider(second).text) == second.note.text  # told twice after a crash


def test_a_witness_refuses_every_other_history(witness: Witness, tmp_path: Path):
    first, second = sealed_up_to(tmp_path / "seal", 700, 1_900)
    witness.consider(second)
    refused = {
        "1900 were seen before": first,
        "two different trees of 1900": submission(1_900, bytes(32)),
        "the proof begins at 700": submission(2_000, bytes(32), 700),
        "the proof": submission(2_000, bytes(32), 1_900, *second.proof),
        "not signed by shop.example": Submission(
            0, (), Note(second.note.text).signed(PrivateKey.generate("shop.example"))
        ),
        "is no tree of shop.example": sealed(Checkpoint("elsewhere/0", 1, bytes(32)), 0, (), KEY),
    }
    for why, one in refused.items():
        with pytest.raises(Refused, match=why):
            witness.consider(one)
    assert witness.seen(ORIGIN) == Checkpoint.of(second.note)
