"""The book of laws: a fold of the whole log, record by record, that ends in a verdict on each law."""

from collections.abc import Iterable, Mapping
from typing import Any

from ops.audit.breaches import Breaches
from ops.audit.chains import Batches, Chains
from ops.audit.effects import Effects
from ops.audit.stock import StockBooks
from ops.audit.tally import Tally
from ops.audit.trade import TradeBooks
from ops.audit.wire import AvscReader, UnreadableError

LAWS_OF_THE_LOG = ("1", "2", "3", "4", "5", "6", "8")
"""All laws but the seventh, which speaks of what stands beside the log."""

GRACE_US = 2_000_000
STREAM_OF = {
    "catalog": "product/",
    "cart": "cart/",
    "order": "order/",
    "inventory": "stock/",
    "payment": "payment/",
}


class LawBook:
    """Feed it every record of `events.*` and `decisions.*`, each partition in order, from the start, then finish it.

    The topics may come in any order. The log must be at rest: an order half-way is judged by `now`.
    """

    def __init__(self, reader: AvscReader | None = None, grace_us: int = GRACE_US) -> None:
        self._reader = reader or AvscReader()
        self._breaches = Breaches()
        self._chains = Chains(self._breaches)
        self._batches = Batches(self._breaches)
        self._effects = Effects(self._breaches)
        self._stock = StockBooks(self._breaches, grace_us)
        self._trade = TradeBooks(self._breaches, grace_us)
        self.tally = Tally()
        self.events = 0

    def feed(self, topic: str, partition: int, value: bytes) -> None:
        """One Kafka value of a topic `….events.…` or `….decisions.…`."""
        kind, aggregate = topic.rsplit(".", 2)[1:]
        try:
            name, record = self._reader.read(value)
        except UnreadableError as error:
            self._breaches.add("8", f"{topic}[{partition}]: {error}")
            return
        if kind == "decisions":
            self._effects.told(record, STREAM_OF[aggregate])
            self.tally.told(record)
        else:
            self._feed_event(topic, partition, aggregate, name, record, value)

    def finish(
        self, now: int, ledger: Iterable[Mapping[str, Any]] | None = None, acknowledged: Iterable[str] = ()
    ) -> dict[str, str]:
        """The verdicts at `now`, in microseconds.

        `ledger` is the payment provider's, if there is one; `acknowledged` are the positions (`stream@version`)
        that callers hold receipts for.
        """
        self._batches.finish()
        self._effects.finish(self._chains.version_of, acknowledged)
        self._trade.finish(now)
        self._stock.finish(now, self._trade.placed_at)
        if ledger is not None:
            self._trade.compare_with_provider(ledger)
        return self._breaches.verdicts(LAWS_OF_THE_LOG)

    def _feed_event(
        self, topic: str, partition: int, aggregate: str, name: str, record: dict[str, Any], value: bytes
    ) -> None:
        self.events += 1
        meta = record["meta"]
        self._chains.follow(partition, meta, value)
        self._batches.collect(meta)
        self._effects.happened(topic, partition, meta)
        self.tally.happened(name, meta)
        if aggregate == "inventory":
            self._stock.fold(name, record)
        elif aggregate in ("order", "payment"):
            self._trade.fold(name, record)
