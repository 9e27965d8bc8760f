"""Taking partitions over: their state is copied from the topics to this machine's disk, and compared with the log."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from commands.journal import (
    Journal,
    JournalLostError,
    LogDamagedError,
    OutputKind,
    Partition,
    Piece,
    Store,
    Stored,
)
from commands.writer import Tail, Writer
from schemas.meta import DAY, HOUR, SECOND, Micros

KINDS: tuple[OutputKind, ...] = ("state", "decisions", "events")
STATE_AGE_MAX = 12 * HOUR
"""A local copy that is older is made anew: tombstones live for a day in a compacted topic, no longer."""

WAIT_S = 0.05
"""So long the partitions that are served may stand still for those that are not."""

HOLD_MAX = 1 * SECOND
"""So long those that are loaded wait for others that are still being read."""

NOTHING_MAX = 60 * SECOND
"""When nothing could be read for so long, a new process tries it with new connections."""


class Loading:
    """The partitions on their way to be served, read side by side: one that cannot be read holds up no other.

    Where their logs end is asked of all of them first: a partition without a leader holds up that question.
    """

    def __init__(self, journal: Journal, store: Store, clock: Callable[[], Micros]) -> None:
        self._journal = journal
        self._store = store
        self._clock = clock
        self._loads: dict[Partition, _Load] = {}
        self._moved_at = self._changed_at = Micros(0)

    @property
    def awaited(self) -> Sequence[Partition]:
        """The partitions that are not loaded yet."""
        return tuple(self._loads)

    def begin(self, writers: Iterable[Writer]) -> None:
        """Load for these writers, whose partitions are fenced, and for no other."""
        self._loads = {writer.partition: self._begun(writer) for writer in writers}
        self._read_on()

    def go_on(self) -> Sequence[Writer]:
        """Read a piece; returns those that are ready to serve."""
        if self._unread():
            moved = self._take(self._journal.read_on(WAIT_S))
            # Reading begins anew whenever other places are read, so many change together, unless some stand still.
            if moved and self._unread() and self._clock() - self._changed_at < HOLD_MAX:
                return ()
        return self._advance()

    def _unread(self) -> bool:
        return any(load.rest for load in self._loads.values())

    def _begun(self, writer: Writer) -> "_Load":
        ends = self._ends(writer.partition)
        return _Load(writer, ends, self._copied_up_to(writer.partition))

    def _ends(self, partition: Partition) -> Mapping[OutputKind, int]:
        return {kind: self._journal.ends(kind, partition) for kind in KINDS}

    def _copied_up_to(self, partition: Partition) -> dict[OutputKind, int]:
        """How far this machine's copy reaches; an unusable one is deleted."""
        value = self._store.get(_note_key(partition))
        identity, at, state, decisions = value.decode().split(" ") if value else ("", "0", "0", "0")
        if identity == self._journal.identity(partition) and self._clock() - int(at) < STATE_AGE_MAX:
            return {"state": int(state), "decisions": int(decisions)}
        prefix = f"{partition}/".encode()
        self._store.delete_range(prefix, prefix[:-1] + b"0")  # "0" follows "/"
        since_ms = (self._clock() - DAY) // 1_000
        return {"state": 0, "decisions": self._journal.start_of("decisions", partition, since_ms)}

    def _read_on(self) -> None:
        self._moved_at = self._changed_at = self._clock()
        self._journal.read_from(
            {(kind, load.partition): at for load in self._loads.values() for kind, at in load.rest.items()}
        )

    def _take(self, piece: Piece) -> bool:
        """Whether anything came that is waited for."""
        puts: dict[bytes, bytes | None] = {}
        for (kind, partition), stored in piece.records:
            puts |= self._loads[partition].take(kind, stored)
        self._store.write(puts)
        moved = False
        for (kind, partition), offset in piece.reached.items():
            moved |= self._loads[partition].reach(kind, offset)
        if moved:
            self._moved_at = self._clock()
        elif self._clock() - self._moved_at > NOTHING_MAX:
            raise JournalLostError(f"{', '.join(map(str, self.awaited))} could not be read")
        return moved

    def _advance(self) -> Sequence[Writer]:
        """Whose copy is whole goes on to the tail, whose tail is read is ready."""
        read = [load for load in self._loads.values() if not load.rest]
        copied = [load for load in read if load.tail is None]
        for load in copied:
            self._resume(load)
        if any(load.rest for load in copied):
            # Those without a tail wait for the others' a moment, so that all are served together.
            self._read_on()
            return ()
        for load in read:
            self._check(load)
            del self._loads[load.partition]
        if read:
            self._read_on()
        return [load.writer for load in read]

    def _resume(self, load: "_Load") -> None:
        identity = self._journal.identity(load.partition)
        ends = load.ends
        self._store.write(
            copied_note(identity, load.partition, self._clock(), ends["state"], ends["decisions"])
        )
        load.tail = load.writer.resume(ends["events"], ends["decisions"])
        load.next = dict(load.tail.starts)

    def _check(self, load: "_Load") -> None:
        assert load.tail is not None
        try:
            load.tail.check()
        except LogDamagedError as error:
            if self._ends(load.partition) == load.ends:
                raise
            # We stood still meanwhile, and the partition has another writer.
            raise JournalLostError(f"{load.partition} was written while it was loaded: {error}") from error


@dataclass(slots=True)
class _Load:
    """One partition: first its state and decisions are copied up to `ends`, then the tail is read."""

    writer: Writer
    ends: Mapping[OutputKind, int]
    next: dict[OutputKind, int]
    """Where reading goes on."""
    tail: Tail | None = None

    @property
    def partition(self) -> Partition:
        return self.writer.partition

    @property
    def rest(self) -> dict[OutputKind, int]:
        """What is still to be read, from where."""
        return {kind: at for kind, at in self.next.items() if at < self.ends[kind]}

    def reach(self, kind: OutputKind, offset: int) -> bool:
        """Reading has come to this offset; whether that is news."""
        is_news = kind in self.rest and offset > self.next[kind]
        if is_news:
            self.next[kind] = offset
        return is_news

    def take(self, kind: OutputKind, stored: Stored) -> dict[bytes, bytes | None]:
        """What a record means for this machine's disk."""
        if not self.next[kind] <= stored.offset < self.ends[kind]:
            return {}
        if self.tail is None:
            return self.writer.restore(kind, stored)
        self.tail.take(kind, stored)
        return {}


def copied_note(
    identity: str, partition: Partition, now: Micros, state: int, decisions: int
) -> dict[bytes, bytes | None]:
    """The note beside the copy that says how far it reaches: written in the same write as the records."""
    return {_note_key(partition): f"{identity} {now} {state} {decisions}".encode()}


def _note_key(partition: Partition) -> bytes:
    return f"{partition}/copied".encode()
