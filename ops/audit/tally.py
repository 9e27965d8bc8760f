"""The tally: how much a run decided, and how long it traded, counted from the log itself."""

from dataclasses import dataclass, field

from ops.audit.wire import Record

BEGINS = "CartCreated"
ENDS = "OrderShipped"


@dataclass(slots=True)
class Tally:
    """Counted while the log is read; trading lasts from the first cart to the last shipment, in microseconds."""

    records: int = 0
    began_at: int | None = None
    ended_at: int | None = None
    _decided: list[tuple[int, str, int]] = field(default_factory=list)

    def happened(self, name: str, meta: Record) -> None:
        self.records += 1
        at = meta["recorded_at"]
        if name == BEGINS:
            self.began_at = at if self.began_at is None else min(self.began_at, at)
        elif name == ENDS:
            self.ended_at = at if self.ended_at is None else max(self.ended_at, at)

    def told(self, decisions: Record) -> None:
        """A record of decisions: of one transaction there is one for each partition that it touched."""
        self.records += 1
        meta = decisions["meta"]
        self._decided.append((meta["recorded_at"], meta["batch_id"], len(decisions["decided"])))

    @property
    def elapsed_s(self) -> float:
        """0 where nothing was shipped."""
        if self.began_at is None or self.ended_at is None:
            return 0.0
        return (self.ended_at - self.began_at) / 1_000_000

    @property
    def commands(self) -> int:
        """Decided while trading lasted, the sagas' included."""
        return sum(commands for at, _, commands in self._decided if self._is_trading(at))

    @property
    def transactions(self) -> int:
        """Committed while trading lasted."""
        return len({batch_id for at, batch_id, _ in self._decided if self._is_trading(at)})

    def _is_trading(self, at: int) -> bool:
        return (
            self.began_at is not None and self.ended_at is not None and self.began_at <= at <= self.ended_at
        )
