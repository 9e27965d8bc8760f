"""The tree is RFC 6962's: its published vectors, a recursive definition beside it, and proofs that cannot be bent."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.evidence.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeOf,
    ProofFailed,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    subtrees,
    verify_consistency,
    verify_inclusion,
)
from ops.evidence.tree_file import TreeFile

# The eight leaves, and roots and proofs over them, that Certificate Transparency's implementations test themselves with.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
PATH_OF_0_IN_8 = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
)
PATH_OF_2_IN_3 = ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",)
GROWTH_FROM_6_TO_8 = (
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
)
GROWTH_FROM_2_TO_5 = (
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
)


def nodes_of(leaves: list[bytes]) -> NodeOf:
    return lambda level, index: recursive_root(leaves[index << level : index + 1 << level])


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition of the RFC, word by word."""
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    both = recursive_root(leaves[:split]) + recursive_root(leaves[split:])
    return sha256(b"\x01" + both).digest()


def unhex(*texts: str) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def test_the_roots_are_the_published_ones():
    tree = Frontier()
    assert tree.root() == EMPTY_ROOT
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        tree.append(leaf_hash(leaf))
        assert tree.root().hex() == root


def test_the_proofs_are_the_published_ones():
    node = nodes_of(LEAVES)
    assert inclusion_proof(node, 0, 8) == unhex(*PATH_OF_0_IN_8)
    assert inclusion_proof(node, 2, 3) == unhex(*PATH_OF_2_IN_3)
    assert inclusion_proof(node, 0, 1) == []
    assert consistency_proof(node, 6, 8) == unhex(*GROWTH_FROM_6_TO_8)
    assert consistency_proof(node, 2, 5) == unhex(*GROWTH_FROM_2_TO_5)
    assert consistency_proof(node, 1, 1) == consistency_proof(node, 0, 8) == []


trees = st.integers(1, 70).map(lambda size: [bytes([n]) * (n % 3) + b"%d" % n for n in range(size)])


@given(trees, st.data())
def test_every_leaf_is_proved_and_no_other_one_by_its_proof(leaves: list[bytes], data: st.DataObject):
    size, root, node = len(leaves), recursive_root(leaves), nodes_of(leaves)
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_proof(node, index, size)
    verify_inclusion(leaf_hash(leaves[index]), index, size, path, root)
    bent = data.draw(
        st.sampled_from(list(bent_inclusions(leaf_hash(leaves[index]), index, size, path, root)))
    )
    with pytest.raises(ProofFailed):
        verify_inclusion(*bent)


def bent_inclusions(
    leaf: bytes, index: int, size: int, path: list[bytes], root: bytes
) -> Iterator[tuple[bytes, int, int, list[bytes], bytes]]:
    other = sha256(leaf).digest()
    yield other, index, size, path, root
    yield leaf, size, size, path, root
    yield leaf, index, size, [*path, other], root
    yield leaf, index, size, path, other
    if path:
        yield leaf, index, size, path[:-1], root
        yield leaf, index, size, [other, *path[1:]], root
        yield leaf, index ^ 1, size, path, root


@given(trees, st.data())
def test_growth_is_proved_and_nothing_else_passes_for_it(leaves: list[bytes], data: st.DataObject):
    new, node = len(leaves), nodes_of(leaves)
    old = data.draw(st.integers(1, new))
    old_root, new_root, proof = (
        recursive_root(leaves[:old]),
        recursive_root(leaves),
        consistency_proof(node, old, new),
    )
    verify_consistency(old, new, old_root, new_root, proof)
    other = sha256(old_root).digest()
    bent = [(old, new, other, new_root, proof), (old, new, old_root, other, proof)]
    bent += [(old, new, old_root, new_root, [*proof, other]), (new + 1, new, old_root, new_root, proof)]
    if proof:
        bent += [(old, new, old_root, new_root, cut) for cut in (proof[1:], proof[:-1], [other, *proof[1:]])]
    with pytest.raises(ProofFailed):
        verify_consistency(*data.draw(st.sampled_from(bent)))


@given(trees, st.sets(st.integers(0, 69)))
def test_a_tree_is_made_of_some_of_its_leaves_and_what_lies_between_them(leaves: list[bytes], kept: set[int]):
    node, tree = nodes_of(leaves), Frontier()
    for leaf in [*sorted(n for n in kept if n < len(leaves)), len(leaves)]:
        for level, index in subtrees(tree.size, leaf):
            tree.append_subtree(level, node(level, index))
        if leaf < len(leaves):
            tree.append(leaf_hash(leaves[leaf]))
    assert (tree.size, tree.root()) == (len(leaves), recursive_root(leaves))


def test_a_subtree_stands_only_where_it_is_aligned():
    tree = Frontier()
    tree.append(leaf_hash(b""))
    with pytest.raises(ValueError, match="cannot stand at leaf 1"):
        tree.append_subtree(1, leaf_hash(b""))


@settings(max_examples=25)
@given(leaves=trees, data=st.data())
def test_a_tree_in_a_file_is_the_same_tree_whenever_it_is_opened_again(leaves, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("tree") / "tree"
    cut = data.draw(st.integers(0, len(leaves)))
    first = TreeFile(path, 0)
    first.append(map(leaf_hash, leaves))
    first.close()

    again = TreeFile(path, cut)
    again.append(map(leaf_hash, leaves[cut : cut + 5]))
    again.flush()
    again.append(map(leaf_hash, leaves[cut + 5 :]))
    assert again.root() == root_of(nodes_of(leaves), 0, len(leaves)) == recursive_root(leaves)
    for old in range(1, len(leaves)):
        assert again.root(old) == recursive_root(leaves[:old])
    assert again.node(0, len(leaves) - 1) == leaf_hash(leaves[-1])
    with pytest.raises(ValueError, match="no subtree"):
        again.node(1, len(leaves) // 2)
    again.close()


def test_a_file_that_is_too_short_is_no_tree(tmp_path: Path):
    with pytest.raises(ValueError, match="shorter than a tree of 3 leaves"):
        TreeFile(tmp_path / "tree", 3)
