"""`./daybook erase CUSTOMER`: a person is forgotten; what was traded, counted and proved stays as it is."""

import asyncio
import getpass
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import Annotated
from uuid import UUID, uuid4

import typer
from confluent_kafka import KafkaException

from api.personal import ERASURES_LOOK_INTERVAL_S
from api.personal_keys import Erasure, KeysUnusable, PersonalKeys
from api.security import is_subject
from api.settings import from_environment
from ops.cli import brought_up, fail, say
from ops.settings import Settings
from projections import order
from projections.cassandra_store import CassandraReader, CassandraSettings
from projections.view import StoreUnavailable
from schemas.codec import Codec
from schemas.meta import SECOND, CommandMeta, Micros, derived_id
from schemas.order import EraseOrderContact
from schemas.topics import Topics
from streams.asked import Asked
from streams.command_producer import CommandProducer
from streams.record_producer import NotDelivered, RecordProducer

WITHIN_S = 30.0
"""So long the orders have to forget; a command that came later would have no effect."""

HEARD_S = 2 * ERASURES_LOOK_INTERVAL_S
"""By then every process of the API has heard that a key is gone, and an order that it sealed till then is in its view."""

LOOK_EVERY_S = 0.1
SAY_EVERY_S = 2.0
PAGE = 100
SHOWN_MAX = 10


def erase(
    customer: Annotated[str, typer.Argument(help="The customer's id: the subject of their tokens.")],
    *,
    by: Annotated[str, typer.Option(help="Who does it, as the orders' events will say.")] = "",
) -> None:
    """Destroy the key of a customer's personal data, and have their orders and all views forget it. There is no way back.

    Names, e-mails and addresses in Kafka, in exports and in backups of them cannot be read by anybody from then on;
    orders, money and stock stay, and proofs still verify. Asked again, it finishes what was interrupted. Exit 1 if the
    customer is unknown, or if a view did not follow within 30 s; 2 if it could not be done.
    """
    actor = by or _user()
    if not (is_subject(customer) and is_subject(actor)):
        fail("a customer and whoever erases are visible ASCII without blanks and slashes, at most 200", 2)
    found = brought_up("erase")
    try:
        done = asyncio.run(erased(customer, actor, found))
    except (KeysUnusable, KafkaException, StoreUnavailable, NotDelivered) as error:
        fail(f"not all of it is done, ask again: {error}", 2)
    except KeyboardInterrupt:
        say("daybook: interrupted; ask again to finish")
        raise typer.Exit(130) from None
    for line in told(customer, done):
        typer.echo(line)
    if not done.is_known or done.left:
        raise typer.Exit(1)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        fail("say who does it: --by NAME", 2)


@dataclass(frozen=True)
class Done:
    """`now` is what was destroyed, `before` the last erasure before it; of all `orders` so many were cleared, and those
    `left` show their contact's ciphertext still.
    """

    now: Erasure | None
    before: Erasure | None
    orders: int
    cleared: int
    left: Sequence[str]

    @property
    def is_known(self) -> bool:
        return bool(self.now or self.before or self.orders)


def told(customer: str, done: Done) -> Iterator[str]:
    if not done.is_known:
        yield f"nothing is known of {customer}: no order, and never a key"
        return
    if done.now:
        yield f"{customer}: key {done.now.key_id} was destroyed at {done.now.at}; what it sealed is gone everywhere"
    elif done.before:
        yield f"{customer}: already erased at {done.before.at}"
    else:
        yield f"{customer}: there is no key, and so no personal data"
    yield f"orders: {done.orders:,}, of which {done.cleared:,} forgot a contact just now"
    if done.left:
        yield f"views that have not followed within {WITHIN_S:.0f} s (the API shows nothing of it): {len(done.left):,}"
        yield from (f"  order/{order_id}" for order_id in done.left[:SHOWN_MAX])
        yield "ask again when ./daybook status is well"


async def erased(customer: str, actor: str, found: Settings) -> Done:
    """Key first: whatever is interrupted after that, nobody reads the person's data again.

    Raises KeysUnusable, StoreUnavailable, NotDelivered, KafkaException.
    """
    keys = _keys()
    try:
        now = keys.destroy(customer)
        destroyed, returned = keys.erasures_of(customer), keys.key_of(customer)
    finally:
        keys.close()
    if now:
        await asyncio.sleep(HEARD_S)
    async with _clerk(found) as clerk:
        sealed_by = {one: await clerk.key_id(one) async for one in clerk.orders_of(customer)}
        gone = {erasure.key_id for erasure in destroyed}
        _refuse_strangers(set(sealed_by.values()) - gone - {None, returned and returned.key_id})
        asked = [one for one, key_id in sealed_by.items() if key_id in gone]
        await clerk.ask(asked, actor)
        left = await clerk.still_showing(asked)
    before = [one for one in destroyed if one != now]
    return Done(now, before[-1] if before else None, len(sealed_by), len(asked) - len(left), left)


def _refuse_strangers(key_ids: set[str | None]) -> None:
    """To clear the views of what is still readable elsewhere would be to lie."""
    if key_ids:
        raise KeysUnusable(
            f"{len(key_ids)} of the keys that sealed this customer's orders were never in"
            f" {from_environment().personal}: is that where the API's are?"
        )


def _keys() -> PersonalKeys:
    settings = from_environment()
    return PersonalKeys(settings.personal, settings.personal_key)


@dataclass(frozen=True)
class _Clerk:
    """Knows a customer's orders from their view, and asks them to forget."""

    reader: CassandraReader
    commands: CommandProducer

    async def orders_of(self, customer: str) -> AsyncIterator[str]:
        cursor: str | None = ""
        while cursor is not None:
            page = (await order.of_customer(self.reader, customer, cursor, PAGE)).document()
            for one in page["orders"]:
                yield one["order_id"]
            cursor = page["next"]

    async def key_id(self, order_id: str) -> str | None:
        """Of the key that sealed the contact which its page shows; None where it shows none."""
        found = await order.find(self.reader, order_id)
        contact = found["contact"] if found else None
        return contact and str(contact["key_id"])

    async def ask(self, order_ids: Sequence[str], actor: str) -> None:
        run = str(uuid4())
        await self.commands.send([_asked(EraseOrderContact(one), run, actor) for one in order_ids])

    async def still_showing(self, order_ids: Sequence[str]) -> list[str]:
        """Those that show a contact when time is up; none, as soon as all views have followed."""
        left, began = list(order_ids), time.monotonic()
        said = began
        while left and (now := time.monotonic()) - began < WITHIN_S:
            if now - said > SAY_EVERY_S:
                said = now
                say(f"waiting for {len(left):,} of {len(order_ids):,} orders ({now - began:.0f} s)")
            await asyncio.sleep(LOOK_EVERY_S)
            left = [one for one in left if await self.key_id(one)]
        return left


@asynccontextmanager
async def _clerk(found: Settings) -> AsyncIterator[_Clerk]:
    reader = CassandraReader(CassandraSettings.from_environment())
    producer = RecordProducer(found.kafka)
    try:
        topics = Topics(found.topic_prefix, found.partitions)
        yield _Clerk(reader, CommandProducer(producer, Codec(), topics))
    finally:
        producer.close()
        await reader.close()


def _asked(command: EraseOrderContact, run: str, actor: str) -> Asked:
    now = Micros(time.time_ns() // 1_000)
    meta = CommandMeta(
        command_id=derived_id(run, command.stream),
        stream=command.stream,
        traceparent=f"00-{UUID(run).hex}-{token_hex(8)}-01",
        issued_at=now,
        not_after=Micros(now + int(WITHIN_S) * SECOND),
        occurred_at=None,
        expected_version=None,
        reply_to=None,
        correlation_id=run,
        causation_id=run,
        actor_kind="operator",
        actor_id=actor,
        fingerprint="",
    )
    return Asked("order", command.order_id, command, meta)
