"""Whatever bytes come in, a decoder says what it made of them, or raises the one error that it declares."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import errands, payment, receipts
from api.problems import (
    IdempotencyKeyMissingError,
    InvalidRequestError,
    MalformedRequestError,
    UnauthorizedError,
    UntrustedWebhookError,
)
from api.security import Keys, Principal, Verifier
from api.signatures import Secrets, WebhookVerifier
from commands.journal import LogDamagedError, Output, Partition, Stored
from commands.window import Window
from ops import tokens
from ops.audit.wire import AvscReader, UnreadableError
from ops.payment_sandbox.webhooks import sign
from ops.simulate.stores import Disk
from projections.cursor import BadCursor, cursor_of, place_of
from projections.receipt import parse_receipt
from schemas.avro import released_files, schema_in, schema_of
from schemas.codec import MARKER, UndecodableError
from schemas.decisions import Decided, Decisions
from schemas.inventory import ActiveClaim, ReceiptLine, ReceiveStock, StockItem, StockReserved
from schemas.language import META_OF
from schemas.letters import DeadLetter
from schemas.meta import Micros, derived_id
from schemas.resolution import encode_sample, samples_of
from schemas.topics import STREAM_NAME_MAX
from schemas.values import MAIN, Position
from streams.dead_letters import ParkedStreams, _letter_in
from streams.intake import Intake, UnfitError, expected_on, stream_in_headers
from streams.payments import ProviderRequest, UnreadableAnswerError, Verb, read_answer
from streams.schema_registry import LearningDecoder
from tests.commands.in_memory import CODEC, TOPICS, Desk
from tests.messages import COMMAND, instances, meta_for

UNHURRIED = timedelta(seconds=60)
"""No example may take longer, also on a busy machine: a decoder that hangs is caught."""
fuzzed = settings(max_examples=50, deadline=UNHURRIED)

RESERVED = StockReserved("85123A", MAIN, 100, 1, 2, 3, "order", 7, "claim", 6, Micros(1))
RECEIVE = ReceiveStock(MAIN, "delivery", (ReceiptLine("85123A", 6),))
DECIDED = Decided(
    COMMAND.command_id, "ReceiveStock", "stock/85123A/main", (), 0, None, "", "accepted", "", (), None, (),
    "", "", None, Micros(1), "",
)  # fmt: skip
LETTER = DeadLetter("redis", "t.events.cart", 1, 42, "cart/a", "not Avro", b"k", b"\x00", released=False)


def written(body: Any) -> bytes:
    return CODEC.encode(body, vars(meta_for(type(body))))


RIGHT = [
    written(body)
    for body in (
        RESERVED,
        RECEIVE,
        StockItem(1, 2, 3, 4, 5, 6),
        ActiveClaim("85123A", MAIN, "o", 1, 6, Micros(1)),
        Decisions(bytes(range(16)), (DECIDED,)),
        LETTER,
    )
] + [
    encode_sample(schema, sample)
    for (name, _), file in released_files().items()
    if name in ("Payment", "StockAdjusted", "ProviderEventIgnored")
    for schema in [json.loads(file.read_text("utf-8"))]
    for sample in samples_of(schema)
]
HEADERS = [MARKER + fingerprint for fingerprint, _ in CODEC.schemas()]


def bytes_like(examples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of the examples, spoilt in the middle, cut or run on; or what nobody ever wrote."""
    junk = st.binary(max_size=30)
    places = st.floats(0, 1)

    def spoilt(drawn: tuple[bytes, float, float, bytes]) -> bytes:
        right, first, second, new = drawn
        start, end = sorted((int(first * len(right)), int(second * len(right))))
        return right[:start] + new + right[end:]

    return st.tuples(st.sampled_from(examples), places, places, junk).map(spoilt) | st.binary(max_size=300)


def values_like(examples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Also with the header of a schema that is known, and behind it anything."""
    known = st.tuples(st.sampled_from(HEADERS), st.binary(max_size=200)).map(b"".join)
    return bytes_like(examples) | known


def text_like(*examples: str) -> st.SearchStrategy[str]:
    """As a header's bytes come in, or a query's text."""
    return bytes_like([one.encode() for one in examples]).map(
        lambda value: value.decode("latin-1")
    ) | st.text(max_size=100)


INTAKE = Intake(CODEC, expected_on(TOPICS))
READERS: Mapping[str, tuple[Callable[[bytes], Any], type[Exception]]] = {
    "a message": (CODEC.decode, UndecodableError),
    "the beginning of decisions": (lambda value: CODEC.peek(value, "ids"), UndecodableError),
    "what the window keeps of decisions": (
        lambda value: Window(b"", Disk(), CODEC).restore(Stored(3, None, value)),
        UndecodableError,
    ),
    "what the auditor reads": (AvscReader().read, UnreadableError),
    "an event that an agent takes in": (
        lambda value: INTAKE.read(TOPICS.events("cart"), value[:9], value),
        UnfitError,
    ),
    "a decision that an agent takes in": (
        lambda value: INTAKE.read(TOPICS.decisions("cart"), None, value),
        UnfitError,
    ),
}


@pytest.mark.parametrize("reader", READERS)
@fuzzed
@given(value=values_like(RIGHT))
def test_a_record_is_read_or_refused_by_the_declared_error(reader: str, value: bytes):
    read, declared = READERS[reader]
    with suppress(declared):
        read(value)


@fuzzed
@given(message=st.sampled_from([*META_OF]), data=st.data())
def test_any_message_may_be_restored_as_what_it_is_not(message: type, data: st.DataObject):
    """Whoever may write into our topics may write there what our own codec takes for a message."""
    body, meta = data.draw(instances(message)), data.draw(instances(META_OF[message]))
    value = CODEC.encode(body, vars(meta), 1, b"")
    for read, declared in READERS.values():
        with suppress(declared):
            read(value)


# The command worker.


@settings(max_examples=20, deadline=UNHURRIED)
@given(values=st.lists(values_like(RIGHT) | st.none(), min_size=1, max_size=5))
def test_the_worker_answers_a_command_or_writes_a_letter_about_it(values: list[bytes | None]):
    desk = Desk()
    for value in values:
        desk.journal.send("inventory", value, "85123A", TOPICS.partition_of("85123A"))
    while desk.journal.inbox:
        desk.handler.turn()

    assert len(desk.letters()) + len(desk.decided()) == len(values)


@settings(max_examples=20, deadline=UNHURRIED)
@given(message=st.sampled_from([*META_OF]), junk=values_like(RIGHT), data=st.data())
def test_a_new_worker_passes_over_what_strangers_wrote(message: type, junk: bytes, data: st.DataObject):
    """Or says that the log is damaged, where an event stands of which the state knows nothing."""
    desk = Desk()
    partition = Partition("inventory", TOPICS.partition_of("85123A"))
    desk.ask("inventory", RECEIVE, derived_id("1"))
    body, meta = data.draw(instances(message)), data.draw(instances(META_OF[message]))
    key = data.draw(st.sampled_from([b"stranger", b"\xff", None, b"claim/1"]))
    for kind in ("state", "decisions", "events"):
        for value in (junk, CODEC.encode(body, vars(meta), 1, b"")):
            desk.journal.logs[kind, partition].append(Output(kind, partition, key, value, ()))
    with suppress(LogDamagedError):
        desk.restart(Disk())


# Letters, headers, schemas: what agents read beside the messages themselves.


class Message:
    """As Kafka's client hands it over."""

    def __init__(self, value: bytes | None = None, headers: Any = None) -> None:
        self._value = value
        self._headers = headers

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Any:
        return self._headers


@fuzzed
@given(value=values_like(RIGHT) | st.none())
def test_a_dead_letter_is_one_or_nothing(value: bytes | None):
    letter: Any = _letter_in(CODEC, Message(value))  # type: ignore[arg-type]  # a stand-in
    assert letter is None or isinstance(letter, DeadLetter)


@fuzzed
@given(letters=st.lists(instances(DeadLetter), max_size=8))
def test_any_letters_can_be_folded(letters: list[DeadLetter]):
    parked = ParkedStreams()
    for at, letter in enumerate(letters):
        parked.fold(letter, at)

    assert len(parked) <= len(letters)


headers = st.lists(st.tuples(st.sampled_from(["stream", "type", "strea\u1d0d"]), st.none() | st.binary()))


@fuzzed
@given(headers=st.none() | headers | headers.map(dict))
def test_the_stream_in_headers_is_a_name_or_nothing(headers: Any):
    name = stream_in_headers(Message(headers=headers))  # type: ignore[arg-type]  # a stand-in
    assert len(name.encode()) <= STREAM_NAME_MAX


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
words = st.sampled_from(["record", "string", "StockItem", "daybook.Payment", "Line", "null", "array"])
schemas_like = st.dictionaries(
    st.sampled_from(["type", "name", "namespace", "fields", "items"]), words | json_values, max_size=5
)


@st.composite
def spoilt_schemas(draw: st.DrawFn) -> Any:
    schema = dict(schema_of(draw(st.sampled_from([StockItem, StockReserved]))))
    schema[draw(st.sampled_from([*schema]))] = draw(words | json_values | st.lists(schemas_like, max_size=2))
    return schema


@fuzzed
@given(schema=schemas_like | spoilt_schemas() | json_values, junk=st.binary(max_size=60))
def test_garbage_among_the_schemas_stops_nobody(schema: Any, junk: bytes):
    """What the topic `schemas` holds is learned or passed over, and its messages are undecodable at worst."""
    learned = schema_in(json.dumps(schema).encode())
    codec = copy(CODEC)
    codec._shapes, codec._prefixes = dict(CODEC._shapes), {}
    decoder = LearningDecoder(codec, lambda: {} if learned is None else {"": learned})
    with suppress(UndecodableError):
        decoder.decode(MARKER + b"12345678" + junk)
    for header in codec._shapes.keys() - set(HEADERS):
        with suppress(UndecodableError):
            decoder.decode(header + junk)
        with suppress(UndecodableError):
            codec.peek(header + junk, "ids")


@fuzzed
@given(value=st.binary(max_size=200))
def test_bytes_among_the_schemas_are_none(value: bytes):
    assert schema_in(value) is None


# What callers send.


BACKDATER = Principal("anna", "merchant", backdate=True)
REQUEST = ProviderRequest(Verb.CAPTURE, "k", "p", "o", 500, "GBP", "", "auth")
TEXTS: Mapping[str, tuple[Callable[[str], Any], type[Exception], tuple[str, ...]]] = {
    "a cursor": (lambda text: place_of(text, int, str), BadCursor, (cursor_of(3, "order/1"),)),
    "a receipt": (receipts.read, ValueError, ("cart/7c0f@3, stock/85%2C123A/main@12",)),
    "a view's receipt": (parse_receipt, ValueError, ("cart/7c0f@3, order/2@1",)),
    "an idempotency key": (
        lambda text: errands._idempotency_key({"idempotency-key": text}),
        IdempotencyKeyMissingError,
        ("k-1",),
    ),
    "an expected version": (
        lambda text: errands._expected_version({"if-match": text}),
        MalformedRequestError,
        ('W/"3"',),
    ),
    "a time": (
        lambda text: errands._occurred_at({"daybook-occurred-at": text}, BACKDATER),
        InvalidRequestError,
        ("2010-12-01T08:26:00+00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"),
    ),
    "a notice": (
        lambda text: payment._read(text.encode()),
        InvalidRequestError,
        (json.dumps(payment.EXAMPLE),),
    ),
    "a provider's answer": (
        lambda text: read_answer(REQUEST, 200, text.encode("utf-8", "surrogatepass")),
        UnreadableAnswerError,
        ('{"outcome": "succeeded", "verb": "capture", "id": "c"}', "[" * 5_000),
    ),
}


@pytest.mark.parametrize("kind", TEXTS)
@fuzzed
@given(data=st.data())
def test_a_text_is_read_or_refused_by_the_declared_error(kind: str, data: st.DataObject):
    read, declared, examples = TEXTS[kind]
    with suppress(declared):
        read(data.draw(text_like(*examples)))


@pytest.mark.parametrize("kind", TEXTS)
def test_what_is_nested_without_end_is_refused_by_the_declared_error(kind: str):
    read, declared, _ = TEXTS[kind]
    for text in ("[" * 60_000, '{"a":' * 20_000, "9" * 5_000, urlsafe_b64encode(b"[" * 60_000).decode()):
        with suppress(declared):
            read(text)


@fuzzed
@given(place=st.lists(st.integers(-(2**63) + 1, 2**63 - 1) | st.text(), max_size=4))
def test_a_cursor_leads_back_to_where_it_was_given_out(place: list[int | str]):
    assert place_of(cursor_of(*place), *map(type, place)) == tuple(place)


streams_ = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@fuzzed
@given(positions=st.lists(st.builds(Position, streams_, st.integers(0, 10**18 - 1)), max_size=5))
def test_a_receipt_says_what_was_written_into_it(positions: list[Position]):
    assert list(receipts.read(receipts.written(positions))) == positions


@fuzzed
@given(text=text_like(COMMAND.traceparent))
def test_a_trace_goes_on_or_begins(text: str):
    trace = errands.traceparent_of({"traceparent": text})
    assert UUID(trace[3:35]).int
    assert len(trace) == len(COMMAND.traceparent)


# Who is trusted.

SECRET = sha256(b"a secret").digest()


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> WebhookVerifier:
    file = tmp_path_factory.mktemp("secrets") / "secrets"
    file.write_text(f"whsec_{b64encode(SECRET).decode()}\n")
    return WebhookVerifier(Secrets(file), lambda: 1_000.0)


SIGNED = sign([SECRET], "evt_1", 1_000, b"{}")


@fuzzed
@given(data=st.data(), spoilt=st.sampled_from([*SIGNED, "body"]))
def test_a_webhook_with_anything_changed_is_not_trusted(
    data: st.DataObject, spoilt: str, verifier: WebhookVerifier
):
    right = dict(SIGNED) | {"body": "{}"}
    told = right | {spoilt: data.draw(text_like(right[spoilt]))}
    body = told.pop("body").encode("utf-8", "surrogatepass")
    try:
        event_id = verifier.event_id_of(told, body)
    except UntrustedWebhookError:
        return
    assert (event_id, body) == ("evt_1", b"{}")
    assert told["webhook-timestamp"].lstrip("0") == "1000"


@pytest.fixture(scope="module")
def tokens_verifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Verifier, str]:
    jwks = tmp_path_factory.mktemp("keys") / "jwks.json"
    tokens.ensure_keys(jwks)
    return Verifier(Keys(jwks)), tokens.issue(jwks, "customer", "ben")


def a_token_of(header: bytes, rest: str) -> str:
    return f"{urlsafe_b64encode(header).decode().rstrip('=')}.{rest}"


@fuzzed
@given(data=st.data())
def test_a_token_that_is_not_ours_is_refused(data: st.DataObject, tokens_verifier: tuple[Verifier, str]):
    verifier, right = tokens_verifier
    head, _, rest = right.partition(".")
    header = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64"]), json_values | words)
    forged = header.map(lambda made: a_token_of(json.dumps(made).encode(), rest))
    token = data.draw(text_like(right, head) | forged)
    try:
        principal = verifier.principal_of(token)
    except UnauthorizedError:
        return
    assert principal == Principal("ben", "customer", backdate=False)


@pytest.mark.parametrize("header", [b"[" * 2_900, b'{"a":' * 500 + b"1" + b"}" * 500, b"9" * 2_900])
def test_a_token_whose_header_is_nested_without_end_is_refused(
    header: bytes, tokens_verifier: tuple[Verifier, str]
):
    with pytest.raises(UnauthorizedError):
        tokens_verifier[0].principal_of(a_token_of(header, "e30.e30"))
