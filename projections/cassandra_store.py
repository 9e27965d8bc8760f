"""Views in Cassandra: rows whose columns are written USING TIMESTAMP = the version of the stream they come from."""

import asyncio
import os
import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from struct import Struct
from struct import error as StructError  # noqa: N812  # it is a class
from time import monotonic
from typing import Any, NamedTuple, Self, TypeAlias

import orjson
from cassandra import ConsistencyLevel, DriverException, RequestExecutionException
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from cassandra.cqltypes import Int32Type, LongType, UTF8Type
from cassandra.io.libevreactor import LibevConnection
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import BatchStatement, BatchType, BoundStatement, dict_factory

from projections.compare import Expected
from projections.generations import Succession, first_generation
from projections.receipt import caught_up, of_kinds
from projections.store import Folded, FoldingStore, Stand
from projections.view import Batch, D, Partition, StoreUnavailable, View
from schemas.values import Position

Session: TypeAlias = Any
Statement: TypeAlias = Any
"""The driver has no types; what it returns enters here and leaves as rows."""

ROWS_MAX = 64
"""So many rows go into one unlogged batch: it must stay below Cassandra's 50 kB for a batch."""

BATCH_BYTES_MAX = 30_000
LONGEST_PAUSE_S = 0.1
"""A look at how far a row has come costs reader and server half a millisecond of CPU each."""

LIVE_S = 1.0
"""So long a reader, and the store between batches, believes that the generation it last saw is the live one."""

SCHEMA_TIMEOUT_S = 30.0
RECONNECT_EVERY_S = 1.0
"""The driver's own way is to wait twice as long each time, up to ten minutes."""

PROTOCOL = 4
"""The next one frames and checks each message once more than TCP does, which costs the driver a tenth of a write. Unsaid,
newer ones are tried first, one connection each.
"""

IN_FLIGHT_MAX = 48
"""So many statements of a batch are under way at once."""

_PACKERS: Mapping[Any, Callable[[Any], bytes]] = {
    Int32Type: Struct(">i").pack,
    LongType: Struct(">q").pack,
    UTF8Type: str.encode,
}
_DOWN = (NoHostAvailable, DriverException, RequestExecutionException, OSError)


@dataclass(frozen=True, slots=True)
class CassandraSettings:
    """`hosts` are host:port, all at one port. One replica locally; a cluster has `replicas` 3 and a `datacenter`."""

    hosts: tuple[str, ...]
    keyspace: str = "daybook"
    replicas: int = 1
    datacenter: str = ""
    timeout_s: float = 5.0

    @classmethod
    def from_environment(cls) -> Self:
        return cls(
            tuple(os.environ.get("DAYBOOK_CASSANDRA", "127.0.0.1:9042").split(",")),
            os.environ.get("DAYBOOK_KEYSPACE", "daybook"),
            int(os.environ.get("DAYBOOK_REPLICAS") or 1),
            os.environ.get("DAYBOOK_DATACENTER", ""),
        )

    def cluster(self) -> Cluster:
        """A cluster object is good for one attempt to connect."""
        profile = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(self.datacenter)),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            request_timeout=self.timeout_s,
            row_factory=dict_factory,
        )
        return Cluster(
            [host.rpartition(":")[0] for host in self.hosts],
            port=int(self.hosts[0].rpartition(":")[2]),
            connection_class=LibevConnection,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            connect_timeout=self.timeout_s,
            reconnection_policy=ConstantReconnectionPolicy(RECONNECT_EVERY_S, max_attempts=None),
            protocol_version=PROTOCOL,
        )


@dataclass(frozen=True)
class Insert:
    """How rows get into a table of a generation: the columns of its key (the first `partition` of them are the
    partition's), then the columns that this insert sets.
    """

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    partition: int

    @cached_property
    def cql(self) -> str:
        names = (*self.key, *self.columns)
        marks = ", ".join("?" * len(names))
        return f"INSERT INTO {self.table}_{{g}} ({', '.join(names)}) VALUES ({marks}) USING TIMESTAMP ?"  # noqa: S608  # names of ours

    def select_of(self, names: Iterable[str]) -> str:
        return f"SELECT {', '.join(names)} FROM {self.table}_{{g}}"  # noqa: S608  # as above

    @cached_property
    def select(self) -> str:
        return self.select_of((*self.key, *self.columns))

    def select_one_of(self, names: Iterable[str]) -> str:
        return f"{self.select_of(names)} WHERE {self._is_key}"

    @cached_property
    def select_one(self) -> str:
        return self.select_one_of((*self.key, *self.columns))

    @cached_property
    def select_version(self) -> str:
        """How far a row has come, and no more: who waits for it asks again and again."""
        return f"SELECT version FROM {self.table}_{{g}} WHERE {self._is_key}"  # noqa: S608  # as above

    @property
    def _is_key(self) -> str:
        return " AND ".join(f"{name} = ?" for name in self.key)

    def row_of(self, document: Any) -> "Row":
        """The row of a document that has all of these columns as its attributes."""
        values = tuple(getattr(document, name) for name in (*self.key, *self.columns))
        return Row(self, values, document.version)


class Row(NamedTuple):
    """`values` in the order of the insert's key and columns, as of `version` of the stream."""

    insert: Insert
    values: tuple[Any, ...]
    version: int

    @property
    def partition(self) -> tuple[Any, ...]:
        return (self.insert.table, *self.values[: self.insert.partition])

    @property
    def size(self) -> int:
        """About how many bytes it takes in a batch."""
        return 8 * len(self.values) + sum([len(value) for value in self.values if isinstance(value, str)])


@dataclass(frozen=True)
class CassandraView(View[D]):
    """A view of tables. The first of `inserts` is the document's own row: `key_of` a stream is its key, and `load`
    makes the document of its columns. `rows` says what a fold writes; it gets a step for each fact if it wants a
    `row_per_fact`.
    """

    inserts: tuple[Insert, ...] = ()
    rows: Callable[[Folded], Iterable[Row]] = lambda _folded: ()
    row_per_fact: bool = False
    key_of: Callable[[str], tuple[Any, ...]] = lambda stream: (stream,)
    load: Callable[[dict[str, Any]], D] = lambda _columns: NotImplemented

    def tables(self, generation: int) -> str:
        return f"v{self.version}_g{generation}"


class _Connection:
    """A session that is opened when it is first needed, and tried anew with each call until it is there."""

    def __init__(self, settings: CassandraSettings) -> None:
        self._settings = settings
        self._cluster: Any = None
        self._session: Session = None
        self._prepared: dict[str, Any] = {}
        self._opening = threading.Lock()

    @property
    def keyspace(self) -> str:
        return self._settings.keyspace

    async def execute(self, cql: str, arguments: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The first page of rows (5,000 at most) of a statement; raises StoreUnavailable."""
        session, statement = await self._ready(cql)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            _bridge(session.execute_async(statement, arguments), answer)
            return list(await answer or ())
        except _DOWN as error:
            raise StoreUnavailable(f"cassandra: {error}") from error

    async def in_thread(self, work: Callable[[Session], Any]) -> Any:
        """What blocking `work` with the session returns; raises StoreUnavailable."""
        return await asyncio.to_thread(lambda: self._answering(lambda: work(self.session())))

    async def close(self) -> None:
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.shutdown)

    async def _ready(self, cql: str) -> tuple[Session, Statement]:
        if self._session is None or cql not in self._prepared:
            await asyncio.to_thread(lambda: self._answering(lambda: self.prepared(cql)))
        return self._session, self._prepared[cql]

    def prepared(self, cql: str) -> Statement:
        """Blocking. The statement, prepared once; the driver prepares it again where a server forgot it."""
        statement = self._prepared.get(cql)
        if statement is None:
            statement = self.session().prepare(cql)
            statement.is_idempotent = True
            self._prepared[cql] = statement
        return statement

    def session(self) -> Session:
        """Blocking."""
        with self._opening:
            if self._session is None:
                self._session = self._open()
            return self._session

    def _open(self) -> Session:
        cluster = self._settings.cluster()
        try:
            session = cluster.connect()
            session.execute(_keyspace_cql(self._settings), timeout=SCHEMA_TIMEOUT_S)
            session.set_keyspace(self._settings.keyspace)
            change_schema(creations("store"), session)
        except BaseException:
            cluster.shutdown()
            raise
        self._cluster = cluster
        return session

    @staticmethod
    def _answering(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except _DOWN as error:
            raise StoreUnavailable(f"cassandra: {error}") from error


def _bridge(response: Any, answer: asyncio.Future[Any]) -> None:
    """Hand the driver's answer, which comes in a thread of its own, over to the loop that waits for it."""
    loop = answer.get_loop()

    def settle(set_it: Callable[[Any], None], value: Any) -> None:
        if not answer.done():
            set_it(value)

    def hand_over(set_it: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, set_it, value)

    response.add_callbacks(
        lambda rows: hand_over(answer.set_result, rows), lambda error: hand_over(answer.set_exception, error)
    )


def creations(of: str, g: str = "") -> list[str]:
    """The statements that lay out one owner (`-- owner` stands above each in tables.cql)."""
    statements = (Path(__file__).parent / "tables.cql").read_text().split(";")
    return [
        statement.partition(f"\n-- {of}\n")[2].replace("{g}", g)
        for statement in statements
        if f"\n-- {of}\n" in statement
    ]


def change_schema(statements: Iterable[str], session: Session) -> None:
    """Blocking. Each waits for the cluster to agree on the schema, which takes a while under load."""
    for cql in statements:
        session.execute(cql, timeout=SCHEMA_TIMEOUT_S)


def _keyspace_cql(settings: CassandraSettings) -> str:
    where = settings.datacenter or "replication_factor"
    return (
        f"CREATE KEYSPACE IF NOT EXISTS {settings.keyspace} WITH replication ="
        f" {{'class': 'NetworkTopologyStrategy', '{where}': {settings.replicas}}}"
    )


_NEXT = "SELECT next FROM view_positions WHERE title = ? AND generation = ? AND topic = ? AND partition = ?"
_FIRST = "SELECT next FROM view_positions WHERE title = ? AND generation = 1 LIMIT 1"
_SET_NEXT = "INSERT INTO view_positions (title, generation, topic, partition, next) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?"
_FORGET = "DELETE FROM view_positions USING TIMESTAMP ? WHERE title = ? AND generation = ?"
_LIVE = "SELECT live FROM live_generations WHERE title = ?"
_BUILT = "SELECT live, built FROM live_generations WHERE title = ?"
_SET_BUILT = "INSERT INTO live_generations (title, built) VALUES (?, ?) USING TIMESTAMP ?"
_COLUMNS = "SELECT column_name FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?"
_BEGIN = "INSERT INTO live_generations (title, live) VALUES (?, ?) USING TIMESTAMP 0"
_SUCCESSION = "SELECT built, succession FROM live_generations WHERE title = ?"
_KEEP = "INSERT INTO live_generations (title, succession) VALUES (?, ?) USING TIMESTAMP ?"
_SET_LIVE = "INSERT INTO live_generations (title, live, succession) VALUES (?, ?, ?) USING TIMESTAMP ?"


async def _live_generation(connection: _Connection, view: View[Any]) -> int:
    """0 where there is none."""
    found = await connection.execute(_LIVE, (view.title,))
    return int(found[0]["live"] or 0) if found else 0


async def _written_generation(connection: _Connection, view: View[Any]) -> int:
    """The live one. Where there is none one begins: 1, where an early Daybook wrote; of two drawn at once the higher."""
    if live := await _live_generation(connection, view):
        return live
    first = 1 if await connection.execute(_FIRST, (view.title,)) else first_generation()
    await connection.execute(_BEGIN, (view.title, first))
    return await _live_generation(connection, view)


class _Generations:
    """Which generation of each view is live, as it was a second ago at most."""

    def __init__(
        self, connection: _Connection, ask: Callable[[_Connection, View[Any]], Awaitable[int]]
    ) -> None:
        self._connection = connection
        self._ask = ask
        self._live: dict[str, tuple[int, float]] = {}

    async def of(self, view: CassandraView[Any]) -> int:
        generation, asked_at = self._live.get(view.title, (0, 0.0))
        if not generation or monotonic() - asked_at > LIVE_S:
            generation = await self._ask(self._connection, view)
            self._live[view.title] = generation, monotonic()
        return generation


class CassandraStore(FoldingStore[CassandraView[Any]]):
    """The views of this store, written; see `store.FoldingStore`."""

    name = "cassandra"

    def __init__(
        self, settings: CassandraSettings, views: Sequence[CassandraView[Any]], pinned: int | None = None
    ) -> None:
        super().__init__(views, pinned)
        self._connection = _Connection(settings)
        self._laid_out: set[tuple[str, int]] = set()
        self._generations = _Generations(self._connection, _written_generation)

    async def close(self) -> None:
        await self._connection.close()

    def _wants_steps(self, view: CassandraView[Any]) -> bool:
        return view.row_per_fact

    async def _stand(self, view: CassandraView[Any], topic: str, partition: int) -> Stand:
        generation = self._pinned or await self._generations.of(view)
        await self.prepare(view, generation)
        found = await self._connection.execute(_NEXT, (view.title, generation, topic, partition))
        return Stand(generation, int(found[0]["next"]) if found else 0)

    async def _load(
        self, view: CassandraView[Any], generation: int, streams: Sequence[str]
    ) -> dict[str, Any]:
        cql = view.inserts[0].select_one.format(g=view.tables(generation))
        keys = [view.key_of(stream) for stream in streams]

        def work(session: Session) -> list[list[dict[str, Any]]]:
            statement = self._connection.prepared(cql)
            return [list(rows) for rows in _all(session, [(statement, key) for key in keys])]

        found = await self._connection.in_thread(work)
        return {stream: _document(view, rows) for stream, rows in zip(streams, found, strict=True)}

    async def _put(self, view: CassandraView[Any], batch: Batch, folded: Folded, then: Stand) -> Stand:
        """There is no compare-and-set without a lightweight transaction: the position was read before the batch,
        and its timestamp is its offset, so that of two writers the one that is further wins.
        """
        if folded.after:
            await self._write(view, then.generation, folded)
        if then.next != batch.expected:
            place = (view.title, then.generation, batch.topic, batch.partition)
            await self._connection.execute(_SET_NEXT, (*place, then.next, then.next))
        return then

    async def _write(self, view: CassandraView[Any], generation: int, folded: Folded) -> None:
        """The documents' own rows last: once one is there, nobody looks again at what belongs to it."""
        rows = list(view.rows(folded))
        for phase in (
            [row for row in rows if row.insert is not view.inserts[0]],
            [row for row in rows if row.insert is view.inserts[0]],
        ):
            await self._connection.in_thread(partial(self._write_rows, view, generation, phase))

    def _write_rows(
        self, view: CassandraView[Any], generation: int, rows: Sequence[Row], session: Session
    ) -> None:
        _all(session, self._statements(view, generation, rows))

    def _statements(
        self, view: CassandraView[Any], generation: int, rows: Iterable[Row]
    ) -> Iterator[tuple[Statement, Sequence[Any]]]:
        g = view.tables(generation)
        bind = {
            insert.cql: _binder(self._connection.prepared(insert.cql.format(g=g))) for insert in view.inserts
        }
        for together in batches(rows):
            bound = [bind[row.insert.cql]((*row.values, row.version)) for row in together]
            yield bound[0] if len(bound) == 1 else _unlogged(bound), ()

    # What a rebuild needs beside a store (`building.Rebuildable`).

    async def live(self, view: CassandraView[Any]) -> int:
        return await _written_generation(self._connection, view)

    async def next_generation(self, view: CassandraView[Any]) -> int:
        """A number that no generation of this view ever had: what was deleted stays deleted for ten days."""
        found = await self._connection.execute(_BUILT, (view.title,))
        latest = max(value or 1 for value in found[0].values()) if found else 1
        await self._connection.execute(_SET_BUILT, (view.title, latest + 1, latest + 1))
        return int(latest + 1)

    async def places(
        self, view: CassandraView[Any], generation: int, partitions: Iterable[Partition]
    ) -> dict[Partition, int]:
        """The next offset of a generation in each partition, 0 where nothing was applied."""
        places = {}
        for topic, partition in partitions:
            found = await self._connection.execute(_NEXT, (view.title, generation, topic, partition))
            places[topic, partition] = int(found[0]["next"]) if found else 0
        return places

    async def succession(self, view: CassandraView[Any]) -> Succession:
        """Its turns are timestamps; what was written before there were any is older than the first of them."""
        found = await self._connection.execute(_SUCCESSION, (view.title,))
        if not found or not found[0]["succession"]:
            return Succession(turn=found[0]["built"] or 1 if found else 1)
        return Succession.load(found[0]["succession"])

    async def keep(self, view: CassandraView[Any], succession: Succession) -> None:
        await self._connection.execute(_KEEP, (view.title, succession.dump().decode(), succession.turn))

    async def prepare(self, view: CassandraView[Any], generation: int) -> None:
        """Create the tables of a generation where they are not there yet."""
        if (view.title, generation) not in self._laid_out:
            await self._connection.in_thread(
                lambda session: [
                    session.execute(cql) for cql in creations(view.name, view.tables(generation))
                ]
            )
            self._laid_out.add((view.title, generation))

    async def rows(self, view: CassandraView[Any], generation: int) -> AsyncIterator[tuple[str, bytes]]:
        """Every row of a generation, by table and key, and what each insert should have set in it."""
        g = view.tables(generation)
        for insert, there in (await self._selectable(view, generation)).items():
            pages = await self._connection.in_thread(partial(_pages, insert.select_of(there).format(g=g)))
            while True:
                for row in pages.current_rows:
                    values = tuple(map(row.get, (*insert.key, *insert.columns)))
                    yield _name_of(insert, values), _content_of(insert, values)
                if not pages.has_more_pages:
                    break
                await self._connection.in_thread(partial(_next_page, pages))

    async def _selectable(self, view: CassandraView[Any], generation: int) -> dict[Insert, Sequence[str]]:
        """The columns of each insert that are there to be read: another version of the view may have had fewer."""
        wanted = {insert: (*insert.key, *insert.columns) for insert in view.inserts}
        if any(view.title == own.title for own in self.views):
            await self.prepare(view, generation)  # a keyspace that was lost holds no rows, and is no error
            return dict(wanted)
        found: dict[Insert, Sequence[str]] = {}
        for insert, names in wanted.items():
            table = f"{insert.table}_{view.tables(generation)}"
            rows = await self._connection.execute(_COLUMNS, (self._connection.keyspace, table))
            there = {row["column_name"] for row in rows}
            if there.issuperset(insert.key):
                found[insert] = [name for name in names if name in there]
        return found

    def undeclared(self, view: CassandraView[Any], name: str, content: bytes) -> bytes | None:
        """What a row holds beside what its view has declared to be new; None: that is all it holds."""
        insert = next(one for one in view.inserts if _title_of(one) == name.partition(" ")[0])
        if insert.table in view.declared:
            return None
        values = zip(insert.columns, orjson.loads(content), strict=True)
        return orjson.dumps([value for column, value in values if column not in view.declared])

    def rows_of(self, view: CassandraView[Any], folded: Folded) -> Iterable[Expected]:
        for row in view.rows(folded):
            yield Expected(_name_of(row.insert, row.values), _content_of(row.insert, row.values))

    # What an audit needs, and healing a key.

    async def held(
        self, view: CassandraView[Any], generation: int, names: Sequence[str]
    ) -> dict[str, bytes | None]:
        """What rows hold (None: there is none), by the names that `rows` gives them."""
        g = view.tables(generation)
        there = await self._selectable(view, generation)
        inserts = {_title_of(insert): insert for insert in there}
        asked = [name for name in names if name.partition(" ")[0] in inserts]

        def work(session: Session) -> dict[str, bytes | None]:
            questions = []
            for name in asked:
                title, _, key = name.partition(" ")
                cql = inserts[title].select_one_of(there[inserts[title]]).format(g=g)
                questions.append((self._connection.prepared(cql), orjson.loads(key)))
            answers = _all(session, questions)
            return {
                name: _held(inserts[name.partition(" ")[0]], list(rows))
                for name, rows in zip(asked, answers, strict=True)
            }

        found: dict[str, bytes | None] = await self._connection.in_thread(work)
        return dict.fromkeys(names) | found

    async def overwrite(
        self,
        view: CassandraView[Any],
        generation: int,
        folded: Folded,
        held: Mapping[str, bytes | None],  # noqa: ARG002  # what is there decides by its timestamp
    ) -> None:
        """Write what this fold, of a stream's whole history, says. A cell whose timestamp is that of its version or
        above keeps what it has: nothing could be written over it that a later event could be written over.
        """
        await self.prepare(view, generation)
        await self._write(view, generation, folded)

    async def switch(
        self, view: CassandraView[Any], generation: int, partitions: Iterable[Partition], then: Succession
    ) -> bool:
        """Make a generation the live one, in one step, unless it is behind in any partition."""
        places = list(partitions)
        old = await self.places(view, await self.live(view), places)
        new = await self.places(view, generation, places)
        if any(new[place] < old[place] for place in places):
            return False
        row = (view.title, generation, then.dump().decode(), then.turn)
        await self._connection.execute(_SET_LIVE, row)
        return True

    async def drop(self, view: CassandraView[Any], generation: int) -> None:
        """Forget a generation that is not live (any more). Its number is not used again."""
        tables = {insert.table for insert in view.inserts}
        cql = [f"DROP TABLE IF EXISTS {table}_{view.tables(generation)}" for table in tables]
        await self._connection.in_thread(partial(change_schema, cql))
        await self._connection.execute(_FORGET, (2**62, view.title, generation))
        self._laid_out.discard((view.title, generation))


class CassandraReader:
    """The views of this store, read. Which generation is live is asked again after `LIVE_S`."""

    def __init__(self, settings: CassandraSettings) -> None:
        self._connection = _Connection(settings)
        self._generations = _Generations(self._connection, _live_generation)

    async def ping(self) -> None:
        """Raises StoreUnavailable."""
        await self._connection.execute("SELECT key FROM system.local")

    async def close(self) -> None:
        await self._connection.close()

    async def select(
        self, view: CassandraView[Any], cql: str, arguments: Sequence[Any] = ()
    ) -> list[dict[str, Any]]:
        """Rows of the live generation (`{g}` in the CQL); none where a view was never written."""
        generation = await self._generations.of(view)
        if not generation:
            return []
        return await self._connection.execute(cql.format(g=view.tables(generation)), arguments)

    async def document(self, view: CassandraView[Any], stream: str) -> Any | None:
        return _document(view, await self.select(view, view.inserts[0].select_one, view.key_of(stream)))

    async def caught_up(self, after: Sequence[Position], *views: CassandraView[Any]) -> None:
        """Return once these views have seen the receipt; raises NotCaughtUp or ForeignReceipt."""
        ours = of_kinds(after, [view.kind for view in views])
        for view in views:
            await caught_up(
                [position for position in ours if position.stream.startswith(view.kind + "/")],
                lambda streams, view=view: self._versions(view, streams),  # type: ignore[misc]
                longest_pause_s=LONGEST_PAUSE_S,
            )

    async def _versions(self, view: CassandraView[Any], streams: Sequence[str]) -> Mapping[str, int]:
        found = await asyncio.gather(*(self._version(view, stream) for stream in streams))
        return dict(zip(streams, found, strict=True))

    async def _version(self, view: CassandraView[Any], stream: str) -> int:
        """0 where there is no row, or one that is being written this moment."""
        found = await self.select(view, view.inserts[0].select_version, view.key_of(stream))
        return found[0]["version"] or 0 if found else 0


def batches(rows: Iterable[Row]) -> Iterable[list[Row]]:
    """Rows of one partition together, as many as an unlogged batch may hold."""
    by_partition: defaultdict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        by_partition[row.partition].append(row)
    for together in by_partition.values():
        start, size = 0, 0
        for end, row in enumerate(together):
            size += row.size
            if end > start and (size > BATCH_BYTES_MAX or end - start == ROWS_MAX):
                yield together[start:end]
                start, size = end, row.size
        yield together[start:]


def _binder(prepared: Statement) -> Callable[[Sequence[Any]], Statement]:
    """As `prepared.bind`, in a third of the time, for values that are of their columns' types already.

    Raises TypeError for one that does not fit, as `bind` does.
    """
    packers = [
        _PACKERS.get(column.type) or partial(column.type.serialize, protocol_version=PROTOCOL)
        for column in prepared.column_metadata
    ]

    def bind(values: Sequence[Any]) -> Statement:
        bound = BoundStatement(prepared)
        bound.raw_values = values
        try:
            bound.values = [
                None if value is None else pack(value) for pack, value in zip(packers, values, strict=True)
            ]
        except StructError as error:
            raise TypeError(f"{values[:1]}: {error}") from error
        return bound

    return bind


def _unlogged(bound: Iterable[Statement]) -> Statement:
    batch = BatchStatement(BatchType.UNLOGGED)
    batch.is_idempotent = True
    for statement in bound:
        batch.add(statement)
    return batch


def _all(session: Session, statements: Iterable[tuple[Statement, Sequence[Any]]]) -> list[Any]:
    """Blocking. The results of all statements, in order, so many under way at once; raises the first error.

    The first is on its way while the next is made, which the driver's `execute_concurrent` would do under its lock.
    """
    results: list[Any] = []
    under_way: deque[Any] = deque()
    for statement, arguments in statements:
        if len(under_way) == IN_FLIGHT_MAX:
            results.append(under_way.popleft().result())
        under_way.append(session.execute_async(statement, arguments))
    return results + [response.result() for response in under_way]


def _pages(cql: str, session: Session) -> Any:
    return session.execute(cql)


def _next_page(pages: Any, _session: Session) -> None:
    pages.fetch_next_page()


def _document(view: CassandraView[Any], found: Sequence[dict[str, Any]]) -> Any | None:
    """A row without its version is a part of one that is being written this moment."""
    return view.load(dict(found[0])) if found and found[0]["version"] is not None else None


def _title_of(insert: Insert) -> str:
    return f"{insert.table}.{insert.columns[0]}"


def _name_of(insert: Insert, values: Sequence[Any]) -> str:
    key = values[: len(insert.key)]
    return f"{_title_of(insert)} {orjson.dumps(key).decode()}"


def _held(insert: Insert, found: Sequence[dict[str, Any]]) -> bytes | None:
    return _content_of(insert, tuple(map(found[0].get, (*insert.key, *insert.columns)))) if found else None


def _content_of(insert: Insert, values: Sequence[Any]) -> bytes:
    return orjson.dumps(values[len(insert.key) :])
