"""Commands out of agents: through one idempotent producer, awaited before what caused them is acknowledged."""

from collections.abc import Iterable

from schemas.codec import Codec
from schemas.topics import Topics
from streams.asked import Asked
from streams.record_producer import Outgoing, RecordProducer


class CommandProducer:
    """Knows how a command stands on its topic: key, partition, headers, value."""

    def __init__(self, producer: RecordProducer, codec: Codec, topics: Topics) -> None:
        self._producer = producer
        self._codec = codec
        self._topics = topics

    async def send(self, commands: Iterable[Asked]) -> None:
        """Returns when all are acknowledged; raises NotDelivered (send them again: their ids make that harmless)
        or UnsendableError.
        """
        await self._producer.send([self._record(command) for command in commands])

    def _record(self, command: Asked) -> Outgoing:
        value = self._codec.encode(command.body, vars(command.meta))
        headers = {
            "type": type(command.body).__name__.encode(),
            "stream": command.meta.stream.encode(),
            "schema": value[2:10].hex().encode(),
            "traceparent": command.meta.traceparent.encode(),
        }
        topic, partition = self._topics.commands(command.aggregate), self._topics.partition_of(command.key)
        return Outgoing(topic, partition, command.key.encode(), value, headers)
