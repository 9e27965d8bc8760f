"""The book of laws: a fold of the whole log, record by record, that ends in a verdict on each law."""

from collections.abc import Iterable, Mapping
from typing import Any

from ops.audit.breaches import Breaches
from ops.audit.chains import Batches, Chains, End
from ops.audit.checkouts import Checkouts
from ops.audit.desk import AT_REST, Deadlines, Desk
from ops.audit.effects import Effects
from ops.audit.open_orders import OpenOrders
from ops.audit.stock import StockBooks
from ops.audit.tables import Books, BooksInMemory
from ops.audit.tally import Tally
from ops.audit.trade import TradeBooks
from ops.audit.wire import AvscReader, Record, UnreadableError

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
    """Feed it every record of `events.*` and `decisions.*`, each partition in order, from the start.

    The topics may come in any order. Where the log is at rest, `finish` it: an order half-way is judged by `now`.
    Where it grows, `judge` it at every cut (`desk.Desk`), as often as you like.
    """

    def __init__(
        self,
        reader: AvscReader | None = None,
        grace_us: int = GRACE_US,
        *,
        silence_us: int | None = None,
        books: Books | None = None,
        breaches: Breaches | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._reader = reader or AvscReader()
        self._breaches = breaches or Breaches()
        self._desk = Desk(self._breaches, books or BooksInMemory())
        self._deadlines = Deadlines(self._desk, grace_us, silence_us)
        self._chains = Chains(self._desk)
        self._batches = Batches(self._desk)
        self.effects = Effects(self._desk)
        self._stock = StockBooks(self._desk, self._deadlines)
        self._trade = TradeBooks(self._desk, self._deadlines)
        self._orders = OpenOrders(self._desk, self._deadlines)
        self._checkouts = Checkouts(self._desk, self._deadlines)
        self._tally = tally
        self.events = 0

    def feed(self, topic: str, partition: int, value: bytes) -> Record | None:
        """One Kafka value of a topic `….events.…` or `….decisions.…`; returns what it says, None if nobody can read it."""
        kind, aggregate = topic.rsplit(".", 2)[1:]
        try:
            name, record = self._reader.read(value)
        except UnreadableError as error:
            self._breaches.add("8", f"{topic}[{partition}]: {error}")
            return None
        if kind == "decisions":
            self.effects.told(record, STREAM_OF[aggregate])
            if self._tally is not None:
                self._tally.told(record)
        else:
            self._feed_event(topic, partition, aggregate, name, record, value)
        return record

    def finish(
        self,
        now: int,
        ledger: Iterable[Mapping[str, Any]] | None = None,
        acknowledged: Iterable[str] = (),
        *,
        settled: bool = False,
    ) -> dict[str, str]:
        """The verdicts at `now`, in microseconds.

        `ledger` is the payment provider's, if there is one; `acknowledged` are the positions (`stream@version`)
        that callers hold receipts for. `settled` says that you have waited until nothing was owed any more: then what
        an order or a cart still waits for is a breach, however soon it would ask again.
        """
        self._judge(AT_REST, now)
        self.effects.check_acknowledged(self._chains.version_of, acknowledged)
        self._stock.check_sums()
        if settled:
            self._orders.check_settled()
            self._checkouts.check_closed()
        if ledger is not None:
            self._trade.compare_with_provider(ledger)
        return self._breaches.verdicts(LAWS_OF_THE_LOG)

    def begin_cut(self, number: int) -> None:
        """The ends of all partitions were just asked for, for the `number`-th time."""
        self._desk.cut = number

    def judge(self, cut: int) -> None:
        """All that is committed has been read up to the ends that this cut found; deadlines go by the log's own time."""
        self._judge(cut, None)

    def end_of(self, stream: str) -> End | None:
        """The last event of a stream, and who asked for it."""
        return self._chains.end_of(stream)

    def _judge(self, cut: int, now: int | None) -> None:
        self._batches.judge(cut)
        self.effects.judge(cut)
        self._trade.judge(cut)
        self._stock.judge(cut, self._trade.placed_at)
        for kind, key in self._deadlines.missed(now):
            match kind:
                case "claim":
                    self._stock.miss(key)
                case "checkout":
                    self._checkouts.miss(key, self._trade.placed_at)
                case "reminder":
                    self._orders.miss(key)
                case _:
                    self._trade.miss(kind, key)

    def _feed_event(
        self, topic: str, partition: int, aggregate: str, name: str, record: dict[str, Any], value: bytes
    ) -> None:
        self.events += 1
        meta = record["meta"]
        self._deadlines.tick((topic, partition), meta["recorded_at"])
        self._chains.follow(partition, meta, value)
        self._batches.collect(meta)
        self.effects.happened(topic, partition, meta)
        if self._tally is not None:
            self._tally.happened(name, meta)
        if aggregate == "inventory":
            self._stock.fold(name, record)
        elif aggregate in ("order", "payment"):
            self._trade.fold(name, record)
        if aggregate == "order":
            self._orders.fold(name, record)
        elif aggregate == "cart":
            self._checkouts.fold(name, record)
