"""A tampered bundle is named, however it was tampered with: by accident, by a forger of everything but the keys, by the sealer."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from ops.evidence.assembly import Part
from ops.evidence.bundle import NotABundle
from ops.evidence.checkpoint import Checkpoint, Note, PrivateKey, Submission, split
from ops.evidence.cli import told
from ops.evidence.merkle import leaf_hash
from ops.evidence.values import LAYOUTS, RELEASED, digest_of
from ops.evidence.verify import Bad, Trust, WrongKey, verify
from schemas.avro import AVSC, released_files
from tests.evidence.forgery import SEALER, WITNESS, Opened, Rewriter, Scene, another_history, scene_in

SAMPLE, ALL = 300, 10_000

Tampering = Callable[[Scene, Random, Path], None]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = scene_in(tmp_path_factory.mktemp("scene"))
    yield made
    for log in made.logs:
        log.tree.close()


@pytest.fixture(scope="module")
def rewriter(scene: Scene) -> Rewriter:
    return Rewriter(scene.opened["sku"].schemas)


def any_of(scene: Scene, random: Random, *kinds: str) -> tuple[Opened, int, int]:
    """A bundle in pieces, one of its trees, and the place of one of its records."""
    opened = scene.opened[random.choice(kinds or list(scene.opened))].copy()
    tree = random.choice([n for n, records in enumerate(opened.records) if records])
    return opened, tree, random.randrange(len(opened.records[tree]))


# By accident: the bytes of the file.


def flip_a_bit(scene: Scene, random: Random, path: Path) -> None:
    body = bytearray(scene.bundles[random.choice(list(scene.bundles))].read_bytes())
    body[random.randrange(len(body))] ^= 1 << random.randrange(8)
    path.write_bytes(body)


def truncate_the_file(scene: Scene, random: Random, path: Path) -> None:
    body = scene.bundles[random.choice(list(scene.bundles))].read_bytes()
    path.write_bytes(body[: random.randrange(len(body))])


# By a forger: everything but the signatures is made right again.


def flip_a_bit_of_a_record(scene: Scene, random: Random, path: Path) -> None:
    opened, tree, place = any_of(scene, random)
    record = opened.records[tree][place]
    value = bytearray(record["value"])
    value[random.randrange(len(value))] ^= 1 << random.randrange(8)
    record["value"] = bytes(value)
    if random.random() < 0.5:
        record["hash"] = leaf_hash(record["value"])
    opened.close(path)


def delete_a_record(scene: Scene, random: Random, path: Path) -> None:
    """One that was asked for, and of a SKU or an order not the last of its stream: that could be withheld."""
    rewriter = Rewriter(scene.opened["sku"].schemas)
    while True:
        opened, tree, place = any_of(scene, random)
        records = opened.records[tree]
        events = [rewriter.read(record["value"])[1] for record in records]
        question, event = opened.manifest.question, events[place]
        last = max(n for n, one in enumerate(events) if one["meta"]["stream"] == event["meta"]["stream"])
        deleted = {
            "period": question.begin <= event["meta"]["recorded_at"] < question.end,
            "order": event.get("order_id") == question.order and place != last,
            "sku": place != last,
        }
        if deleted[question.kind]:
            break
    del records[place]
    opened.proofs[tree] = scene.proof_without(opened, tree, [record["leaf"] for record in records])
    told = opened.manifest.trees[tree]
    opened.tell(tree, records=len(records), asked=told.asked - 1)
    opened.close(path)


def truncate_a_period(scene: Scene, random: Random, path: Path) -> None:
    opened, tree, _ = any_of(scene, random, "period")
    records = opened.records[tree]
    asked = opened.manifest.trees[tree].asked
    del records[-random.randint(2, asked) :]  # the last one stands behind the period
    opened.proofs[tree] = scene.proof_without(opened, tree, [record["leaf"] for record in records])
    opened.tell(tree, records=len(records))
    opened.close(path)


def swap_two_records(scene: Scene, random: Random, path: Path) -> None:
    opened, tree, place = any_of(scene, random, "sku", "period")
    records = opened.records[tree]
    other = random.choice([n for n in range(len(records)) if n != place])
    keys = random.choice([("value",), ("value", "hash"), ("leaf", "offset", "value", "hash")])
    for key in keys:
        records[place][key], records[other][key] = records[other][key], records[place][key]
    opened.close(path)


def forge_a_record(scene: Scene, random: Random, path: Path) -> None:
    opened, tree, place = any_of(scene, random)
    record = opened.records[tree][place]
    rewriter = Rewriter(opened.schemas)
    _, event = rewriter.read(record["value"])
    field = random.choice([name for name, value in event.items() if isinstance(value, int)])
    forged = rewriter.rewritten(record["value"], **{field: event[field] + random.choice([-1, 1, 1_000])})
    record |= {"value": forged, "hash": leaf_hash(forged)}
    opened.close(path)


def forge_who_did_it(scene: Scene, random: Random, path: Path) -> None:
    opened, tree, place = any_of(scene, random)
    record = opened.records[tree][place]
    forged = Rewriter(opened.schemas).rewritten(record["value"], meta__actor_id="somebody else")
    record |= {"value": forged, "hash": leaf_hash(forged)}
    opened.close(path)


def chain_anew(scene: Scene, random: Random, path: Path) -> None:
    """A record is changed, and all that follow it in its stream are made to chain to it."""
    opened, tree, place = any_of(scene, random)
    rechain(opened, tree, place)
    opened.close(path)


def rechain(opened: Opened, tree: int, place: int) -> None:
    records, rewriter = opened.records[tree], Rewriter(opened.schemas)
    stream = rewriter.read(records[place]["value"])[1]["meta"]["stream"]
    changes: dict[str, object] = {"meta__actor_id": "somebody else"}
    for record in records[place:]:
        if rewriter.read(record["value"])[1]["meta"]["stream"] == stream:
            forged = rewriter.rewritten(record["value"], **changes)
            record |= {"value": forged, "hash": leaf_hash(forged)}
            changes = {"meta__previous": sha256(forged).digest()}


def append_what_never_was(scene: Scene, random: Random, path: Path) -> None:
    """A last record again, as the next one: behind the last checkpoint, or instead of what the proof has there."""
    opened, tree, _ = any_of(scene, random, "sku")
    last = opened.records[tree][-1]
    size = max(scene.log_of(opened, tree).notes)
    leaf = random.choice([size, min(last["leaf"] + 1, size - 1)])
    opened.records[tree].append(last | {"leaf": leaf, "offset": last["offset"] + 2})
    told = opened.manifest.trees[tree]
    opened.tell(tree, records=told.records + 1, asked=told.asked + 1)
    opened.close(path)


def change_the_proof(scene: Scene, random: Random, path: Path) -> None:
    opened, tree, _ = any_of(scene, random, "sku", "order")
    proof = opened.proofs[tree]
    place = random.randrange(len(proof))
    match random.randrange(3):
        case 0:
            del proof[place]
        case 1:
            proof[place] = bytes(reversed(proof[place]))
        case _:
            proof.append(proof[place])
    opened.close(path)


def change_a_checkpoint(scene: Scene, random: Random, path: Path) -> None:
    """Another size, another root, another order, one left out: the signature, or the growth, is wrong then."""
    opened, tree, _ = any_of(scene, random)
    parts = split(opened.checkpoints[tree][0])
    place = random.randrange(len(parts))
    submission = Submission.parse(parts[place])
    checkpoint = Checkpoint.of(submission.note)
    match random.randrange(4):
        case 0:
            text = Checkpoint(checkpoint.origin, checkpoint.size + 1, checkpoint.root).note().text
            parts[place] = str(
                Submission(submission.old, submission.proof, Note(text, submission.note.signatures))
            )
        case 1:
            text = Checkpoint(checkpoint.origin, checkpoint.size, leaf_hash(checkpoint.root)).note().text
            parts[place] = str(
                Submission(submission.old, submission.proof, Note(text, submission.note.signatures))
            )
        case 2:
            parts.reverse()
        case _:
            del parts[place]
    opened.checkpoints[tree] = ["".join(parts)]
    opened.close(path)


def sign_with_another_key(scene: Scene, random: Random, path: Path) -> None:
    opened, tree, _ = any_of(scene, random)
    forger = PrivateKey.generate(SEALER.name)
    parts = [Submission.parse(part) for part in split(opened.checkpoints[tree][0])]
    forged = random.sample(range(len(parts)), random.randint(1, len(parts)))
    opened.checkpoints[tree] = [
        str(Submission(one.old, one.proof, Note(one.note.text).signed(forger)) if n in forged else one)
        for n, one in enumerate(parts)
    ]
    opened.close(path)


def show_another_view(scene: Scene, random: Random, path: Path) -> None:
    """The sealer itself signs another history, over what it had signed before."""
    while True:
        opened, tree, place = any_of(scene, random)
        log, record = scene.log_of(opened, tree), opened.records[tree][place]
        *before, last = sorted(log.notes)
        if record["leaf"] < before[-1]:
            break
    forged = Rewriter(opened.schemas).rewritten(record["value"], meta__actor_id="somebody else")
    record |= {"value": forged, "hash": leaf_hash(forged)}
    other, signed = another_history(scene, log, record["leaf"], forged)
    notes = {size: log.notes[size] for size in before} | {last: signed}
    opened.checkpoints[tree] = ["".join(Part(log.origin, other, notes, ()).checkpoints())]
    other.close()
    opened.close(path)


def answer_another_question(scene: Scene, random: Random, path: Path) -> None:
    opened, tree, _ = any_of(scene, random)
    question = opened.manifest.question
    match random.randrange(3):
        case 0:
            asked = replace(question, sku="another", order="another", begin=question.begin - 10**9)
            opened.manifest = replace(opened.manifest, question=asked)
        case 1:
            opened.tell(tree, asked=opened.manifest.trees[tree].asked + 1)
        case _:
            trees = tuple(replace(one, origin=f"{one.origin}0") for one in opened.manifest.trees)
            opened.manifest = replace(opened.manifest, trees=trees)
    opened.close(path)


def bring_other_schemas(scene: Scene, random: Random, path: Path) -> None:
    """Fields change their names, so that the same bytes say something else, or an event its own, by its namespace."""
    opened, _, _ = any_of(scene, random)
    if random.random() < 0.2:
        random.choice(opened.schemas)["namespace"] = "daybook.babaaab"  # letters enough for any fingerprint
        opened.close(path)
        return
    for schema in opened.schemas:
        names = [field["name"] for field in schema["fields"]]
        first, second = random.sample([names.index(name) for name in ("sellable", "reserved", "shipped")], 2)
        fields = schema["fields"]
        fields[first]["name"], fields[second]["name"] = fields[second]["name"], fields[first]["name"]
    opened.close(path)


KINDS: Mapping[Tampering, str] = {
    flip_a_bit: ".",
    truncate_the_file: "no bundle of evidence|its digest is another",
    flip_a_bit_of_a_record: "not those that were sealed|checkpoint of|no stock event|chain|: Stock|does not follow|before|stock/|speaks of",
    delete_a_record: "follows version|not the first that was|others of the period are missing|speaks of a claim",
    truncate_a_period: "missing at its end|before the period|promised",
    swap_two_records: "not those that were sealed|stands as leaf|offset is not behind|follows version|recorded before|chain|first|checkpoint of|others of the period|claim|its movement|proof ends",
    forge_a_record: "its movement makes|chain|checkpoint of|claim|negative|available|adjusts|expires",
    forge_who_did_it: "does not chain|checkpoint of",
    chain_anew: "is not what the checkpoint of",
    append_what_never_was: "stands as leaf|follows version|proof ends",
    change_the_proof: "proof",
    change_a_checkpoint: "forged|follows one of|stands as leaf|proof|promised|different histories|checkpoint",
    sign_with_another_key: "not signed by|no checkpoint is signed",
    show_another_view: "two different histories",
    answer_another_question: "another SKU|missing|promised|stands where|recorded before",
    bring_other_schemas: "a schema of the bundle is forged",
}
"""Each tampering, and in which words it is named."""


def complaint_of(path: Path) -> str:
    """What the verifier says; it fails the test by finding nothing."""
    with pytest.raises((Bad, NotABundle, WrongKey)) as named:
        verify(path, Trust(SEALER.public), 1)
    return str(named.value)


def tamper(scene: Scene, kind: Tampering, seed: int, folder: Path) -> None:
    path = folder / "tampered.zip"
    kind(scene, Random(f"{kind.__name__} {seed}"), path)
    complaint = complaint_of(path)
    assert re.search(KINDS[kind], complaint), f"{kind.__name__} {seed}: {complaint}"


def test_the_untampered_bundles_are_true(scene: Scene) -> None:
    for name, path in scene.bundles.items():
        verdict = verify(path, Trust(SEALER.public, WITNESS.public))
        assert verdict.question.kind == name
        assert all(tree.cosigned_at == 1_300_000_000 for tree in verdict.trees)
    for name, opened in scene.opened.items():  # and taking one apart and closing it changes nothing
        verify(opened.close(scene.folder / f"again-{name}.zip"), Trust(SEALER.public))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_of_tampering_is_named(kind: Tampering, scene: Scene, tmp_path: Path) -> None:
    for seed in range(SAMPLE // len(KINDS) + 1):
        tamper(scene, kind, seed, tmp_path)


@pytest.mark.deep
def test_ten_thousand_tamperings_are_named(scene: Scene, tmp_path: Path) -> None:
    for seed in range(ALL):
        tamper(scene, list(KINDS)[seed % len(KINDS)], 1_000 + seed, tmp_path)


def test_a_record_whose_bytes_were_changed_is_named_itself(
    scene: Scene, rewriter: Rewriter, tmp_path: Path
) -> None:
    opened = scene.opened["sku"].copy()
    record = opened.records[0][3]
    meta = rewriter.read(record["value"])[1]["meta"]
    record["value"] = rewriter.rewritten(record["value"], meta__actor_id="somebody else")
    place = f"{meta['stream']}@{meta['version']} (leaf {record['leaf']}, offset {record['offset']})"
    assert (
        complaint_of(opened.close(tmp_path / "tampered.zip"))
        == f"{place}: its bytes are not those that were sealed"
    )


def test_a_checkpoint_without_the_witness_is_refused_where_a_witness_is_asked_for(
    scene: Scene, tmp_path: Path
) -> None:
    opened = scene.opened["sku"].copy()
    opened.checkpoints[0] = [
        str(Submission(one.old, one.proof, Note(one.note.text).signed(SEALER)))
        for one in map(Submission.parse, split(opened.checkpoints[0][0]))
    ]
    path = opened.close(tmp_path / "unwitnessed.zip")
    verify(path, Trust(SEALER.public))
    with pytest.raises(Bad, match="no word of the witness"):
        verify(path, Trust(SEALER.public, WITNESS.public))


def roll_back(scene: Scene, opened: Opened, tree: int, size: int) -> None:
    """To the checkpoint of `size` records, as if nothing had been sealed since."""
    log = scene.log_of(opened, tree)
    kept = [record for record in opened.records[tree] if record["leaf"] < size]
    notes = {at: note for at, note in log.notes.items() if at <= size}
    part = Part(log.origin, log.tree, notes, [record["leaf"] for record in kept])
    opened.records[tree], opened.proofs[tree] = kept, list(part.proof())
    opened.checkpoints[tree] = ["".join(part.checkpoints())]
    read, question = Rewriter(opened.schemas).read, opened.manifest.question
    times = [read(record["value"])[1]["meta"]["recorded_at"] for record in kept]
    opened.tell(tree, records=len(kept), asked=sum(question.begin <= time < question.end for time in times))


def test_the_verifier_knows_every_schema_of_a_stock_event_that_was_released() -> None:
    files = [*AVSC.glob("*.avsc"), *released_files().values()]
    schemas = [json.loads(file.read_text("utf-8")) for file in files]
    assert {digest_of(schema) for schema in schemas if schema["name"] in LAYOUTS} == RELEASED


def test_a_bundle_that_holds_nothing_of_what_was_asked_is_not_true(scene: Scene, tmp_path: Path) -> None:
    for kind in ("sku", "order"):
        opened = scene.opened[kind].copy()
        for tree in range(len(opened.records)):
            opened.records[tree].clear()
            opened.proofs[tree] = scene.proof_without(opened, tree, [])
            opened.tell(tree, records=0, asked=0)
        with pytest.raises(Bad, match="there is no record of"):
            verify(opened.close(tmp_path / f"{kind}.zip"), Trust(SEALER.public))


def test_a_period_that_was_cut_to_an_older_checkpoint_is_true_only_up_to_its_last_record(
    scene: Scene, tmp_path: Path
) -> None:
    whole = verify(scene.bundles["period"], Trust(SEALER.public))
    assert all("nothing of the period is missing" in line for line in told(whole, 0)[-1:])
    opened = scene.opened["period"].copy()
    for tree in range(len(opened.records)):
        roll_back(scene, opened, tree, 40)
    verdict = verify(opened.close(tmp_path / "rolled.zip"), Trust(SEALER.public))
    assert all(tree.until for tree in verdict.trees)
    assert all("that nothing followed is not proved" in line for line in told(verdict, 0)[-2:])


def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("not a bundle")
    with pytest.raises(NotABundle, match=r"text\.zip is no bundle of evidence"):
        verify(tmp_path / "text.zip", Trust(SEALER.public))


def test_the_newest_records_of_a_sku_can_be_withheld_and_the_verdict_says_how_far_it_goes(
    scene: Scene, tmp_path: Path
) -> None:
    opened = scene.opened["sku"].copy()
    whole = verify(scene.bundles["sku"], Trust(SEALER.public)).trees[0].ends
    opened.records[0].pop()
    leaves = [record["leaf"] for record in opened.records[0]]
    opened.proofs[0] = scene.proof_without(opened, 0, leaves)
    opened.tell(0, records=len(leaves), asked=len(leaves))
    found = verify(opened.close(tmp_path / "withheld.zip"), Trust(SEALER.public)).trees[0].ends
    assert found == {stream: version - 1 for stream, version in whole.items()}
