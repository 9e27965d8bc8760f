"""The writers' schemas, by fingerprint, in a compacted topic: published before the first event, read when unknown."""

import json
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.avro import Schema, fingerprint_of, schema_in
from schemas.codec import Codec, Datum, Decoded, UnknownFingerprintError
from schemas.topics import Topics
from streams.kafka_clients import DELIVERY_TIMEOUT_MS, producer_config
from streams.topic_reader import read_to_end

ASK_AGAIN_S = 5.0
UNKNOWN_MAX = 1_000


class SchemaRegistry:
    """Key: the fingerprint in hex; value: the schema as JSON, logical types included."""

    def __init__(self, kafka: str, topics: Topics) -> None:
        self._kafka = kafka
        self._topic = topics.schemas

    def publish(self, codec: Codec) -> int:
        """Writes what this code writes and the topic lacks, and waits for it; returns how many those were.

        Raises KafkaException when Kafka does not acknowledge within 30 s.
        """
        present = self.schemas().keys()
        missing = [(print_, schema) for print_, schema in codec.schemas() if print_.hex() not in present]
        if missing:
            self._write([(print_.hex(), json.dumps(schema)) for print_, schema in missing])
        return len(missing)

    def schemas(self) -> dict[str, Schema]:
        """Every published schema by fingerprint, read to the topic's present end; what is no schema is left out."""
        found: dict[str, Schema] = {}
        for message in read_to_end(self._kafka, self._topic):
            schema = schema_in(message.value())
            if schema is not None:
                found[fingerprint_of(schema).hex()] = schema
        return found

    def _write(self, records: list[tuple[str, str]]) -> None:
        failures: list[KafkaError] = []

        def note(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        # A coordinator that has just come up makes a producer wait: a warning of librdkafka's, and no news.
        producer = Producer(producer_config(self._kafka) | {"log_level": 3})
        for key, value in records:
            producer.produce(self._topic, value.encode(), key.encode(), 0, on_delivery=note)
        if producer.flush(DELIVERY_TIMEOUT_MS / 1_000 + 1):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # its public name
        if failures:
            raise KafkaException(failures[0])


class LearningDecoder:
    """Decodes; meets an unknown fingerprint by reading `schemas` to its end, at most once in 5 s for each."""

    def __init__(self, codec: Codec, schemas: Callable[[], dict[str, Schema]]) -> None:
        self._codec = codec
        self._schemas = schemas
        self._asked_at: dict[bytes, float] = {}

    def decode(self, value: bytes) -> Decoded[Any]:
        """Raises UndecodableError, also for a fingerprint that nobody has published."""
        try:
            return self._codec.decode(value)
        except UnknownFingerprintError as unknown:
            if not self._may_ask(unknown.fingerprint):
                raise
            for schema in self._schemas().values():
                self._codec.learn(schema)
            return self._codec.decode(value)

    def adopt(self, value: bytes, datum: Datum) -> Decoded[Any]:
        """The same of a value that somebody else has read as `datum`, which becomes part of it."""
        try:
            return self._codec.adopt(value, datum)
        except UnknownFingerprintError:
            return self.decode(value)

    def _may_ask(self, fingerprint: bytes) -> bool:
        now = time.monotonic()
        if now - self._asked_at.get(fingerprint, float("-inf")) < ASK_AGAIN_S:
            return False
        if len(self._asked_at) >= UNKNOWN_MAX:
            self._asked_at.clear()
        self._asked_at[fingerprint] = now
        return True
