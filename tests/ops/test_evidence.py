"""Evidence on the real Kafka: sealed as it is written, exported, verified without it; and what cannot be proved is said."""

import random
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest
import typer
from confluent_kafka import Producer

from ops.bench.stock_history import StockHistory
from ops.evidence import cli, seal
from ops.evidence.checkpoint import PublicKey
from ops.evidence.keys import ensure_key, private_key
from ops.evidence.sealer import Sealer
from ops.settings import Settings
from schemas.topics import Topics

RECORDS = 400

Say = Callable[..., tuple[int, str]]


@pytest.fixture
def history() -> list[tuple[str, bytes]]:
    return list(StockHistory(RECORDS, 5, seed=3))


@pytest.fixture
def public(ours: Settings, monkeypatch: pytest.MonkeyPatch) -> PublicKey:
    monkeypatch.setattr(seal, "SECONDS", 0.0)
    return ensure_key(ours.keys, "sealer", "shop.example")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Calls a verb: its exit code, and all that it said."""

    def call(verb: Callable[..., None], **options: object) -> tuple[int, str]:
        code = 0
        try:
            verb(**options)
        except typer.Exit as ended:
            code = ended.exit_code
        told = capsys.readouterr()
        return code, told.out + told.err

    return call


def trade(topics: Topics, kafka: str, records: Sequence[tuple[str, bytes]]) -> None:
    """In transactions, every third of which is aborted and done again."""
    producer = Producer(
        {"bootstrap.servers": kafka, "transactional.id": topics.prefix, "partitioner": "murmur2_random"}
    )
    producer.init_transactions(30)
    for number, begin in zip(count(), range(0, len(records), 40), strict=False):
        for attempt in range(2 if number % 3 == 0 else 1):
            producer.begin_transaction()
            for key, value in records[begin : begin + 40]:
                spoilt = value if attempt or number % 3 else b"never was"
                producer.produce(topics.events("inventory"), spoilt, key.encode(), topics.partition_of(key))
            producer.flush(30)
            if number % 3 == 0 and attempt == 0:
                producer.abort_transaction(30)
            else:
                producer.commit_transaction(30)


def sealed_by_a_sealer(ours: Settings, topics: Topics, records: int) -> None:
    """A process' life: from its start until every record is sealed."""
    sealer = Sealer(ours.kafka, topics, ours.state("sealer"), private_key(ours.keys, "sealer"))
    for _ in range(200):
        sealer.turn()
        assert sealer.trouble == ""
        if sealer.detail.startswith(f"{records:,} records") and not sealer.unsealed:
            break
    else:
        pytest.fail(f"not sealed: {sealer.detail}, {sealer.unsealed} unsealed")
    sealer.turn()  # told
    sealer.close()


def test_what_was_traded_is_sealed_exported_witnessed_and_verified(
    ours: Settings,
    topics: Topics,
    public: PublicKey,
    history: list[tuple[str, bytes]],
    say: Say,
    tmp_path: Path,
) -> None:
    bundle, sku = tmp_path / "evidence.zip", history[0][0]
    of_the_sku = sum(key == sku for key, _ in history[:300])
    trade(topics, ours.kafka, history[:200])
    sealed_by_a_sealer(ours, topics, 200)
    trade(topics, ours.kafka, history[200:300])
    sealed_by_a_sealer(ours, topics, 300)

    code, told = say(cli.export, sku=sku, output=bundle)
    assert code == 0, told
    assert f"all that ever happened to {sku}" in told or f"{of_the_sku} records" in told
    code, told = say(cli.verify, bundle=bundle, key=str(public), processes=1)
    assert code == 0, told
    assert told.startswith(f"true: all that happened to {sku}; {of_the_sku} records verified")
    assert f"stock/{sku}/main up to version {of_the_sku}" in told

    code, told = say(
        cli.verify, bundle=bundle, key=str(public), witness=str(ensure_key(ours.keys, "witness", "w"))
    )
    assert (code, "no word of the witness" in told) == (1, True)
    code, told = say(cli.witness)
    assert (code, "0 refused" in told) == (0, True)
    part = {"begin": "2010-12-01", "end": "2010-12-01T00:00:01Z"}
    assert say(cli.export, **part, output=bundle)[0] == 0
    assert (
        "of these trees nothing of the period is missing"
        in say(cli.verify, bundle=bundle, key=str(public))[1]
    )
    whole = {"begin": "2010-12-01", "end": "2030-01-01"}
    assert say(cli.export, **whole, output=bundle)[0] == 0
    code, told = say(
        cli.verify, bundle=bundle, key=str(ours.keys / "sealer.pub"), witness=str(ours.keys / "witness.pub")
    )
    assert code == 0, told
    assert "300 records verified" in told
    assert told.count("that nothing followed is not proved") == topics.partitions

    body = bytearray(bundle.read_bytes())
    body[random.Random(1).randrange(len(body))] ^= 1
    bundle.write_bytes(body)
    code, told = say(cli.verify, bundle=bundle, key=str(public))
    assert (code, told[:4]) in ((1, "BAD "), (2, "dayb"))


def test_what_is_not_sealed_is_said_and_not_exported(
    ours: Settings,
    topics: Topics,
    public: PublicKey,
    history: list[tuple[str, bytes]],
    say: Say,
    tmp_path: Path,
) -> None:
    bundle, (sku, _) = tmp_path / "evidence.zip", history[0]
    trade(topics, ours.kafka, history[:80])
    code, told = say(cli.export, sku=sku, output=bundle, wait=0.0)
    assert (code, "does the sealer run?" in told) == (1, True)
    sealed_by_a_sealer(ours, topics, 80)
    trade(topics, ours.kafka, history[80:160])
    code, told = say(cli.export, sku=sku, output=bundle, wait=0.0)
    assert (code, "--sealed-only exports what is sealed" in told) == (1, True)
    code, told = say(cli.export, sku="nobody has this", output=bundle)
    assert (code, "the log has nothing of" in told) == (2, True)
    assert list(tmp_path.glob("evidence*")) == []

    code, told = say(cli.export, sku=sku, output=bundle, wait=0.0, sealed_only=True)
    assert code == 0, told
    of_the_sku = sum(key == sku for key, _ in history[:80])
    assert f"{of_the_sku} records verified" in say(cli.verify, bundle=bundle, key=str(public))[1]
    code, told = say(cli.verify, bundle=bundle, key=str(ensure_key(tmp_path, "sealer", "shop.example")))
    assert (code, "no checkpoint is signed by shop.example" in told) == (2, True)


def test_a_sealer_that_lost_everything_but_the_topic_does_not_sign_another_log(
    ours: Settings, topics: Topics, public: PublicKey, history: list[tuple[str, bytes]]
) -> None:
    trade(topics, ours.kafka, history[:40])
    sealed_by_a_sealer(ours, topics, 40)
    for file in ours.state("sealer").rglob("*"):
        if file.is_file():
            file.unlink()
    sealed_by_a_sealer(ours, topics, 40)  # nothing is signed twice
    assert not list(ours.state("sealer").rglob("checkpoints"))
