"""The auditor's fold of the log as it grows: law book and views, kept on disk with the position, judged at every cut."""

import asyncio
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
from confluent_kafka import KafkaException

from ops.audit.chains import End
from ops.audit.desk import Place
from ops.audit.follower import Piece, Read
from ops.audit.kept import KeptBreaches
from ops.audit.law_book import LawBook
from ops.audit.mirror import Mirror
from ops.audit.tables import FORMAT, KeptBooks, KeptTable
from ops.audit.wire import AvscReader, Record
from projections.view import Recorded
from schemas.codec import Decoded, UndecodableError

GRACE_US = 30_000_000
"""So late a deadline may be met while its writer is awake: a slot's takeover takes up to 12 s."""

SILENCE_US = 10_000_000
"""A partition in which nothing was written for so long may have had no writer: its deadlines wait for its next word."""

CUT_EVERY_S = 2.0
LAG_MAX = 20_000
"""Further behind, the auditor only reads, and compares nothing."""

log = structlog.get_logger(__name__)


class Log(Protocol):
    """Where the log comes from (`Follower`)."""

    def read(self, wait_s: float) -> Piece: ...

    def ends(self, places: Iterable[Place] | None = None) -> dict[Place, int]: ...


@dataclass(frozen=True)
class Cut:
    """A look at where everything ends; once that is reached, what was open before it is judged."""

    number: int
    ends: Mapping[Place, int]


class Ledgers:
    """All that the auditor keeps on disk: the law book, what was found, the folds of the views, and the position.

    They are written together after each piece of the log, so that a kill costs nothing but the piece in hand. Ledgers of
    another log (`identity`) or of another form are thrown away; what was found is listed in the file `listed`.
    """

    def __init__(self, folder: Path, identity: str, listed: Path, reader: AvscReader) -> None:
        self.books = _opened(folder, f"{FORMAT} {identity}")
        self.breaches = KeptBreaches(self.books, listed, self._end_of)
        self.book = LawBook(reader, GRACE_US, silence_us=SILENCE_US, books=self.books, breaches=self.breaches)
        self._positions: KeptTable[tuple[int]] = self.books.table("positions")
        self._counts: KeptTable[list[int]] = self.books.table("counts")
        self.book.effects.begin_late = bool(self.counted("begun late"))
        self.book.begin_cut(self.counted("cuts"))

    def _end_of(self, stream: str) -> End | None:
        return self.book.end_of(stream)

    def begin_at(self, beginnings: Mapping[Place, int]) -> bool:
        """Go to where the log begins, where that is further than we are; whether these ledgers can go on from there.

        The first decisions may have been deleted before we came: they are kept for a week. What was deleted after we
        came and before we read it, nobody can know: then the ledgers must be begun anew.
        """
        deleted = {place: low for place, low in beginnings.items() if low > self.position(place)}
        for place, low in deleted.items():
            if self.position(place):
                return False
            self.move(place, low)
            if ".events." in place[0]:
                self.breaches.add("8", f"the first events are gone from {_name(place)}")
            elif not self.book.effects.begin_late:
                self.count("begun late", 1)
                self.book.effects.begin_late = True
        self.commit()
        return True

    def counted(self, what: str) -> int:
        """How many `events` were folded, `cuts` taken."""
        return (self._counts.peek(what) or [0])[0]

    def count(self, what: str, more: int) -> None:
        counted = self._counts.get(what)
        if counted is None:
            counted = self._counts[what] = [0]
        counted[0] += more

    def position(self, place: Place) -> int:
        """The offset behind the last record of a partition that was folded; 0 for none."""
        return (self._positions.peek(_name(place)) or (0,))[0]

    def move(self, place: Place, offset: int) -> None:
        self._positions[_name(place)] = (offset,)

    def commit(self) -> None:
        self.books.commit()
        self.breaches.list_all()

    def close(self) -> None:
        self.books.close()


class Auditor:
    """Folds what comes, in pieces; takes cuts, and judges when they are reached. It lives in one thread.

    `reached` is how far each partition was folded, markers included; `behind` the offset behind its last record.
    """

    def __init__(
        self,
        ledgers: Ledgers,
        source: Log,
        decode: Callable[[bytes, Record], Decoded[Any]],
        mirrors: Sequence[Mirror],
        places: Iterable[Place],
    ) -> None:
        self.ledgers = ledgers
        self.behind = {place: ledgers.position(place) for place in places}
        self.reached = dict(self.behind)
        self.lag = 0
        self.abreast = asyncio.Event()
        """Set when the end was reached; not while much is still to be read."""
        self._source = source
        self._decode = decode
        self._mirrors = {
            topic: [mirror for mirror in mirrors if mirror.view.reads(topic)] for topic, _ in self.behind
        }
        self._cut: Cut | None = None
        self._cut_at = float("-inf")
        self._is_news = True

    async def turn(self, wait_s: float) -> None:
        """Read a piece, fold it, judge what it completes. Raises LogCutError; waits for a Kafka that is away."""
        self.fold(await asyncio.to_thread(self._source.read, wait_s))
        await self._take_cut()

    def fold(self, piece: Piece) -> None:
        """One piece of the log, written down as one."""
        events, by_topic = self.ledgers.book.events, defaultdict[str, list[Recorded]](list)
        for read in piece.records:
            record = self.ledgers.book.feed(*read.place, read.value)
            self.behind[read.place] = read.offset + 1
            if record is not None and self._mirrors[read.place[0]]:
                by_topic[read.place[0]] += self._recorded(read, record)
        for topic, records in by_topic.items():
            for mirror in self._mirrors[topic]:
                mirror.fold(records)
        if piece.records:
            self._is_news = True
            for place in {read.place for read in piece.records}:
                self.ledgers.move(place, self.behind[place])
            self.ledgers.count("events", self.ledgers.book.events - events)
            self.ledgers.commit()
        self.reached.update(piece.reached)
        self._judge()

    def ends(self, places: Iterable[Place] | None = None) -> dict[Place, int]:
        """Where the log ends now, uncommitted records included. Raises KafkaException."""
        return self._source.ends(places)

    def has_reached(self, ends: Mapping[Place, int]) -> bool:
        return all(self.reached[place] >= end for place, end in ends.items())

    async def _take_cut(self) -> None:
        """Look where everything ends, if something was read since the last look was begun."""
        now = time.monotonic()
        if self._cut is not None or not self._is_news or now - self._cut_at < CUT_EVERY_S:
            return
        self._cut_at, self._is_news = now, False
        self.ledgers.count("cuts", 1)
        number = self.ledgers.counted("cuts")
        self.ledgers.book.begin_cut(number)
        try:
            self._cut = Cut(number, await asyncio.to_thread(self.ends))
        except KafkaException as error:
            log.warning("cut_not_taken", reason=str(error))
            self._is_news = True  # what was read waits for the next look
            return
        self.lag = sum(max(0, end - self.reached[place]) for place, end in self._cut.ends.items())
        if self.lag > LAG_MAX:
            self.abreast.clear()
        self._judge()

    def _judge(self) -> None:
        if self._cut is not None and self.has_reached(self._cut.ends):
            self.ledgers.book.judge(self._cut.number)
            self._cut, self.lag = None, 0
            self.abreast.set()
            self.ledgers.commit()

    def _recorded(self, read: Read, record: Record) -> list[Recorded]:
        """None for what the views' own code cannot read: its stream shows a gap."""
        try:
            return [Recorded(*read.place, read.offset, read.key, self._decode(read.value, record))]
        except UndecodableError:
            return []


def _opened(folder: Path, identity: str) -> KeptBooks:
    books = KeptBooks(folder)
    owner: KeptTable[tuple[str]] = books.table("identity")
    found = owner.peek("log")
    if found not in (None, (identity,)):
        log.warning("ledgers_begun_anew", reason="they are of another log, or of another release")
        books.close()
        shutil.rmtree(folder)
        return _opened(folder, identity)
    owner["log"] = (identity,)
    books.commit()
    return books


def _name(place: Place) -> str:
    return f"{place[0]}[{place[1]}]"
