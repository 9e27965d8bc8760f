"""Checkpoints, notes and keys are C2SP's, byte by byte; what is not by the key is not believed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.evidence.checkpoint import (
    COSIGNATURE,
    BadSignature,
    Checkpoint,
    NotANote,
    Note,
    PrivateKey,
    PublicKey,
    Submission,
    Unsigned,
    split,
)
from ops.evidence.keys import NoKey, ensure_key, key_file, private_key, public_key

# The example of Go's package note, whose format C2SP's signed note is. Ed25519 signs the same text in one way only.
SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNED = (
    f"{TEXT}\n\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of C2SP's specification of cosignatures; its keys are not told.
COSIGNED = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "\u2014 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)


def test_a_note_is_signed_as_others_sign_it():
    key = PrivateKey.parse(SECRET)
    assert str(key.public) == PUBLIC
    assert key.text() == f"{SECRET}\n"
    assert str(Note(TEXT).signed(key)) == SIGNED


def test_a_note_of_others_is_read_and_verified():
    note = Note.parse(SIGNED)
    assert note.text == TEXT
    assert note.verify(PublicKey.parse(PUBLIC)) == 0
    with pytest.raises(Unsigned):
        note.verify(PrivateKey.generate("PeterNeumann").public)
    with pytest.raises(BadSignature):
        Note.parse(SIGNED.replace("the answer", "an answer")).verify(PublicKey.parse(PUBLIC))


def test_a_checkpoint_of_others_is_read_with_both_its_signatures():
    note = Note.parse(COSIGNED)
    checkpoint = Checkpoint.of(note)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert [one.name for one in note.signatures] == ["example.com/behind-the-sofa", "witness.example.com/w1"]
    assert int.from_bytes(note.signatures[1].body[:8], "big") == 1679315147
    assert checkpoint.note().text == note.text
    assert str(note) == COSIGNED


def test_a_cosignature_says_when_and_is_another_key_than_a_signature():
    key = PrivateKey.generate("witness.example", COSIGNATURE)
    note = Checkpoint("shop.example/0", 3, bytes(32)).note().signed(key, 1_300_000_000)
    assert Note.parse(str(note)).verify(key.public) == 1_300_000_000
    plain = PublicKey(key.name, key.public.raw)
    assert plain.id != key.public.id
    with pytest.raises(Unsigned):
        note.verify(plain)


@given(
    st.integers(0, 1 << 62),
    st.integers(0, 1 << 40),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
)
def test_a_submission_is_read_as_it_was_written(size: int, old: int, proof: list[bytes]):
    note = Checkpoint("shop.example/events/0", size, bytes(32)).note().signed(PrivateKey.parse(SECRET))
    submission = Submission(old, tuple(proof), note)
    assert Submission.parse(str(submission)) == submission
    assert [Submission.parse(part) for part in split(str(submission) * 3)] == [submission] * 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no signature\n",
        "no newline\n\n\u2014 name AAAAAAA=",
        "a tab\t\n\n\u2014 name AAAAAAA=\n",
        "a short signature\n\n\u2014 name AAAAAA==\n",
        "no dash\n\nname AAAAAAA=\n",
        "loose base64\n\n\u2014 name AAAAAAB=\n",
        "too many\n\n" + "\u2014 name AAAAAAA=\n" * 33,
    ],
)
def test_what_is_no_note_is_refused(text: str):
    with pytest.raises(NotANote):
        Note.parse(text)


@pytest.mark.parametrize(
    "text", ["o\n01\n{}\n", "o\n-1\n{}\n", "\n1\n{}\n", "o\n1\n\n", "o\n1\n{}\nmore\n", "o\n1\nAA==\n"]
)
def test_what_is_no_checkpoint_is_refused(text: str):
    with pytest.raises(NotANote):
        Checkpoint.of(Note(text.format("A" * 43 + "=")))


def test_a_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path):
    made = ensure_key(tmp_path, "sealer", "shop.example")
    assert ensure_key(tmp_path, "sealer", "another.example") == made
    assert key_file(tmp_path, "sealer").stat().st_mode & 0o777 == 0o600
    assert private_key(tmp_path, "sealer").public == made
    assert public_key(str(tmp_path / "sealer.pub")) == public_key(str(made)) == made
    assert ensure_key(tmp_path, "witness", "w.example").kind == COSIGNATURE


def test_what_is_no_key_is_named(tmp_path: Path):
    (tmp_path / "text").write_text("PeterNeumann+00000000+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    for given_key, why in (
        (str(tmp_path / "text"), "the id of this key is c74f20a3"),
        ("nowhere.pub", "nowhere.pub"),
    ):
        with pytest.raises(NoKey, match=why):
            public_key(given_key)
    with pytest.raises(NoKey, match="prepare makes one"):
        private_key(tmp_path, "sealer")
    with pytest.raises(NotANote, match="no name of a key"):
        PrivateKey.generate("two words")
