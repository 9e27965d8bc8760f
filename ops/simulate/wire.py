"""What agents and callers put on the wire: records outside transactions, dead letters, webhooks."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from ops.simulate.broker import Headers, Place
from ops.simulate.clockwork import Process
from ops.simulate.network import Network
from schemas.codec import Codec, Decoded
from schemas.letters import DeadLetter
from schemas.meta import HOUR, SECOND, CommandMeta, Micros, derived_id
from schemas.payment import NoteProviderEvent
from schemas.topics import Topics
from streams.dead_letters import ParkedStreams, letter_key
from streams.payments import ProviderAnswer, ProviderRequest
from streams.record_producer import NotDelivered, Outgoing

CODEC = Codec()
SEND_US = 3_000


class _Decoder:
    """Decodes each value once: messages are frozen, and many processes read the same log."""

    def __init__(self) -> None:
        self._known: dict[bytes, Decoded[Any]] = {}

    def decode(self, value: bytes) -> Decoded[Any]:
        """Raises UndecodableError."""
        found = self._known.get(value)
        if found is None:
            found = self._known[value] = CODEC.decode(value)
        return found

    def forget(self) -> None:
        self._known.clear()


DECODER = _Decoder()


class MemoryRecordProducer:
    """Sends as `streams.record_producer.RecordProducer` does: all are acknowledged, or NotDelivered is raised."""

    def __init__(self, process: Process, network: Network, random: Random) -> None:
        self._process = process
        self._network = network
        self._random = random

    async def send(self, records: Sequence[Outgoing]) -> None:
        if not records:
            return
        await asyncio.sleep(self._random.random() * SEND_US / SECOND)
        network = self._network
        if network.weather.down_until > network.clock.now:
            await asyncio.sleep(min(30, (network.weather.down_until - network.clock.now) / SECOND))
            if network.weather.down_until > network.clock.now:
                raise NotDelivered("no broker")
        mishap = network.next_mishap(self._process, "send")
        if mishap == "slow":
            await asyncio.sleep(self._random.uniform(0.1, 8))
        # What a producer gave up may have been written in part, or as a whole.
        count = (
            self._random.randint(0, len(records))
            if mishap in ("answer lost", "request lost")
            else len(records)
        )
        for record in records[:count]:
            headers = list(record.headers.items())
            network.broker.append((record.topic, record.partition), [(record.key, record.value, headers)])
        if mishap in ("answer lost", "request lost"):
            raise NotDelivered("the answer was lost")


class MemoryLetters:
    """As `streams.dead_letters.DeadLetters`: what this process knows to be parked, and the topic behind it."""

    def __init__(self, process: Process, network: Network, topics: Topics, random: Random) -> None:
        self.parked = ParkedStreams()
        self._producer = MemoryRecordProducer(process, network, random)
        self._topic = topics.dead_letters
        self._network = network
        for number, offset, entry in network.broker.committed_entries(self._topic):
            if number == 0:
                self._fold(entry.value or b"", offset)

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        records = [self._outgoing(letter) for letter in letters]
        await self._producer.send(records)
        high = self._network.broker.logs[self._topic, 0].high
        for back, record in enumerate(reversed(records), 1):
            self._fold(record.value, high - back)

    def _fold(self, value: bytes, offset: int) -> None:
        letter = DECODER.decode(value).body
        if isinstance(letter, DeadLetter):
            self.parked.fold(letter, offset)

    def _outgoing(self, letter: DeadLetter) -> Outgoing:
        meta = {
            "stream": letter.stream,
            "recorded_at": self._network.clock.now,
            "batch_id": letter.reason[:40],
        }
        return Outgoing(self._topic, 0, letter_key(letter), CODEC.encode(letter, meta))


def notice(
    topics: Topics, now: Micros, request: ProviderRequest, answer: ProviderAnswer, random: Random
) -> tuple[Place, tuple[bytes, bytes, Headers]]:
    """The command that a webhook becomes; now and then one whose amount is not what was asked."""
    event_id = derived_id(request.key, "webhook")
    amount = request.amount + (random.random() < 0.05)
    body = NoteProviderEvent(
        request.payment_id, request.order_id, amount, request.currency, request.verb.value, request.key,
        answer.outcome, event_id,
    )  # fmt: skip
    command_id = derived_id("webhook", event_id)
    meta = CommandMeta(
        command_id, body.stream, "", now, Micros(now + 12 * HOUR), None, None, None, command_id, command_id,
        "provider", "webhook", "",
    )  # fmt: skip
    return record_of(topics, "payment", request.payment_id, body, meta)


def record_of(
    topics: Topics, aggregate: str, key: str, body: Any, meta: CommandMeta
) -> tuple[Place, tuple[bytes, bytes, Headers]]:
    place = (topics.commands(aggregate), topics.partition_of(key))
    headers = [("stream", body.stream.encode())]
    return place, (key.encode(), CODEC.encode(body, vars(meta)), headers)
