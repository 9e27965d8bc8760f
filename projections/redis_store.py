"""Views in Redis: each document is one key, JSON behind its version, and only a newer version replaces it."""

import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import orjson

from projections.compare import Expected
from projections.generations import Succession, first_generation
from projections.receipt import caught_up, of_kinds
from projections.redis_connection import Command, RedisConnection, UnknownScript
from projections.store import Folded, FoldingStore, Stand
from projections.view import Batch, D, Partition, Served, View
from schemas.values import Position

COMMANDS_MAX = 512
"""So many commands go into one pipeline."""

_FILL = """
local function fill(key, argument)
  local documents, indexes = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  argument = argument + 2
  for i = key, key + 2 * indexes - 1, 2 do
    local last = argument + 3 * tonumber(ARGV[argument])
    for j = argument + 1, last, 3 do
      local member, version, score = ARGV[j], ARGV[j + 1], ARGV[j + 2]
      local seen = redis.call('HGET', KEYS[i + 1], member)
      if not seen or tonumber(seen) < tonumber(version) then
        redis.call('HSET', KEYS[i + 1], member, version)
        if score == '' then redis.call('ZREM', KEYS[i], member) else redis.call('ZADD', KEYS[i], score, member) end
      end
    end
    argument = last + 1
  end
  key = key + 2 * indexes
  for i = key, key + documents - 1 do
    local version, json, expires = ARGV[argument], ARGV[argument + 1], ARGV[argument + 2]
    local seen = tonumber(string.match(redis.call('GETRANGE', KEYS[i], 0, 19), '^%d+'))
    if not seen or seen < tonumber(version) then
      if expires == '' then redis.call('SET', KEYS[i], version .. '\\n' .. json)
      else redis.call('SET', KEYS[i], version .. '\\n' .. json, 'PXAT', expires) end
    end
    argument = argument + 3
  end
end
"""
"""Writes what is newer. KEYS from `key` on: of each index itself and the versions of its members; the documents.
ARGV from `argument` on: how many documents and indexes; of each index how many members, and of each member its name,
version and score (empty: no member any more); of each document version, JSON and the millisecond at which it expires
(empty: never).
"""

_WRITE = f"{_FILL} fill(1, 1) return 1"

_BEGIN = """
local live = redis.call('GET', KEYS[1])
if not live then
  live = redis.call('EXISTS', KEYS[2]) == 1 and '1' or ARGV[1]
  redis.call('SET', KEYS[1], live)
end
"""
"""KEYS: live generation, positions. ARGV: the one that begins where none is live; 1, where an early Daybook wrote."""

_LIVE = f"{_BEGIN} return live"
"""Returns its number."""

_STAND = f"""{_BEGIN}
local generation = ARGV[2] == '' and live or ARGV[2]
return {{generation, redis.call('HGET', KEYS[2], generation .. '/' .. ARGV[3]) or '0'}}
"""
"""And then ARGV: generation (empty: the live one), partition. Returns both numbers."""

_PUT = f"""{_FILL}
local live = redis.call('GET', KEYS[1]) or '0'
local generation = ARGV[1] == '' and live or ARGV[1]
local field = generation .. '/' .. ARGV[2]
local at = redis.call('HGET', KEYS[2], field) or '0'
if generation ~= ARGV[3] or at ~= ARGV[4] then return {{generation, at}} end
fill(3, 6)
if at ~= ARGV[5] then redis.call('HSET', KEYS[2], field, ARGV[5]) end
return {{generation, ARGV[5]}}
"""
"""KEYS as above, and then what is filled. ARGV: generation (empty: the live one), partition; the generation that the
documents are of, the offset expected and the next; what they are filled with. Writes if both still hold, the position
last, and returns both numbers.
"""

_SWITCH = """
local live = redis.call('GET', KEYS[1]) or '0'
for i = 3, #ARGV do
  local old = tonumber(redis.call('HGET', KEYS[2], live .. '/' .. ARGV[i]) or '0')
  local new = tonumber(redis.call('HGET', KEYS[2], ARGV[1] .. '/' .. ARGV[i]) or '0')
  if new < old then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[3], ARGV[2])
return 1
"""
"""KEYS as above, and the succession. ARGV: the next generation and what the succession is then, then every partition:
it goes live unless it is behind in one.
"""

_REPLACE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
elseif ARGV[3] then redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
else redis.call('SET', KEYS[1], ARGV[2]) end
return 1
"""
"""KEYS: document. ARGV: what it holds (empty: nothing), what it is to hold, and maybe when that expires (ms)."""

_UNMARK = """
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[2] == '' then
  if score then return 0 end
elseif not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
"""
"""KEYS: index, versions of its members. ARGV: member, its score (empty: none). Forgets the member if it still has it."""

_SCRIPTS = {
    "live": _LIVE,
    "stand": _STAND,
    "put": _PUT,
    "write": _WRITE,
    "switch": _SWITCH,
    "replace": _REPLACE,
    "unmark": _UNMARK,
}


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """`address` is host:port; every key begins with `prefix`."""

    address: str
    prefix: str = "daybook"
    timeout_s: float = 5.0

    @classmethod
    def from_environment(cls) -> Self:
        return cls(
            os.environ.get("DAYBOOK_REDIS", "127.0.0.1:6379"),
            os.environ.get("DAYBOOK_TOPIC_PREFIX", "daybook"),
        )

    def connect(self) -> RedisConnection:
        return RedisConnection(self.address, self.timeout_s)


@dataclass(frozen=True, slots=True)
class Mark:
    """`member` stands in an index under `score`; no score: it does not stand there any more."""

    index: str
    member: str
    score: float | None


def no_marks(_before: Any | None, _after: Any) -> Iterable[Mark]:
    return ()


@dataclass(frozen=True)
class RedisView(View[D]):
    """A view of JSON documents. `marks` says how documents stand in its indexes, given the stored one and the next;
    `expires_at` when a document is forgotten (micros; None: never).
    """

    dump: Callable[[D], bytes] = orjson.dumps
    load: Callable[[bytes], D] = orjson.loads
    marks: Callable[[D | None, D], Iterable[Mark]] = no_marks
    expires_at: Callable[[D], int | None] = lambda _document: None


@dataclass(frozen=True, slots=True)
class Keys:
    """The names under which one generation of a view lies."""

    prefix: str
    view: View[Any]
    generation: int

    @property
    def live(self) -> str:
        return f"{self.prefix}:{{{self.view.title}}}:live"

    @property
    def built(self) -> str:
        return f"{self.prefix}:{{{self.view.title}}}:built"

    @property
    def succession(self) -> str:
        return f"{self.prefix}:{{{self.view.title}}}:succession"

    @property
    def positions(self) -> str:
        return f"{self.prefix}:{{{self.view.title}}}:positions"

    @property
    def all(self) -> str:
        return f"{self.prefix}:{self.view.title}:{self.generation}:"

    @property
    def indexes(self) -> str:
        return f"{self.all}index:"

    def document(self, stream: str) -> str:
        return f"{self.all}{{{stream.partition('/')[2]}}}"

    def index(self, index: str) -> str:
        return f"{self.indexes}{{{index}}}"

    def index_versions(self, index: str) -> str:
        return f"{self.index(index)}:versions"


Call: TypeAlias = tuple[str, Sequence[str], Sequence[str | bytes | int | float]]
"""A script's name, its keys and its arguments."""


class _Scripts:
    """Runs scripts by their hash, and loads them where the server does not know them (any more)."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._hashes: dict[str, bytes] = {}

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """The results, in order; raises StoreUnavailable if any of them failed."""
        try:
            return await self._run(calls)
        except UnknownScript:
            self._hashes.clear()
            return await self._run(calls)  # each script is idempotent, so what had run may run again

    async def _run(self, calls: Sequence[Call]) -> list[Any]:
        if not self._hashes:
            hashes = await self._redis.ask([("SCRIPT", "LOAD", text) for text in _SCRIPTS.values()])
            self._hashes = dict(zip(_SCRIPTS, hashes, strict=True))
        results: list[Any] = []
        for chunk in chunks(calls, COMMANDS_MAX):
            results += await self._redis.ask(
                [
                    ("EVALSHA", self._hashes[script], len(keys), *keys, *arguments)
                    for script, keys, arguments in chunk
                ]
            )
        return results


class RedisStore(FoldingStore[RedisView[Any]]):
    """The views of this store, written; see `store.FoldingStore`."""

    name = "redis"
    checks_as_it_writes = True

    def __init__(
        self, settings: RedisSettings, views: Sequence[RedisView[Any]], pinned: int | None = None
    ) -> None:
        super().__init__(views, pinned)
        self._prefix = settings.prefix
        self._redis = settings.connect()
        self._scripts = _Scripts(self._redis)

    async def close(self) -> None:
        await self._redis.close()

    async def _stand(self, view: RedisView[Any], topic: str, partition: int) -> Stand:
        arguments = (first_generation(), self._pinned or "", f"{topic}/{partition}")
        ((generation, at),) = await self._scripts.run([("stand", self._position_keys(view), arguments)])
        return Stand(int(generation), int(at))

    async def _load(self, view: RedisView[Any], generation: int, streams: Sequence[str]) -> dict[str, Any]:
        keys = Keys(self._prefix, view, generation)
        values = await fetch(self._redis, [keys.document(stream) for stream in streams])
        return {
            stream: value and view.load(value.partition(b"\n")[2])
            for stream, value in zip(streams, values, strict=True)
        }

    async def _put(self, view: RedisView[Any], batch: Batch, folded: Folded, then: Stand) -> Stand:
        """In one script: a late one, too, finds out that it is late."""
        keys, arguments = _filling(view, Keys(self._prefix, view, then.generation), folded)
        field = f"{batch.topic}/{batch.partition}"
        here = (self._pinned or "", field, then.generation, batch.expected, then.next)
        put: Call = ("put", (*self._position_keys(view), *keys), (*here, *arguments))
        ((generation, at),) = await self._scripts.run([put])
        return Stand(int(generation), int(at))

    def _position_keys(self, view: RedisView[Any]) -> tuple[str, str]:
        keys = Keys(self._prefix, view, 0)
        return keys.live, keys.positions

    # What a rebuild needs beside a store (`building.Rebuildable`).

    async def live(self, view: RedisView[Any]) -> int:
        (live,) = await self._scripts.run([("live", self._position_keys(view), (first_generation(),))])
        return int(live)

    async def next_generation(self, view: RedisView[Any]) -> int:
        """A number that no generation of this view has had since the store was last emptied."""
        live, name = await self.live(view), Keys(self._prefix, view, 0).built
        (number,) = await self._redis.ask([("INCR", name)])
        if number <= live:
            (number,) = await self._redis.ask([("INCRBY", name, live - number + 1)])
        return int(number)

    async def places(
        self, view: RedisView[Any], generation: int, partitions: Iterable[Partition]
    ) -> dict[Partition, int]:
        """The next offset of a generation in each partition, 0 where nothing was applied."""
        places = list(partitions)
        name = Keys(self._prefix, view, 0).positions
        found = await self._redis.ask([("HGET", name, f"{generation}/{t}/{n}") for t, n in places])
        return {place: int(at or 0) for place, at in zip(places, found, strict=True)}

    async def succession(self, view: RedisView[Any]) -> Succession:
        (found,) = await self._redis.ask([("GET", Keys(self._prefix, view, 0).succession)])
        return Succession.load(found) if found else Succession()

    async def keep(self, view: RedisView[Any], succession: Succession) -> None:
        await self._redis.ask([("SET", Keys(self._prefix, view, 0).succession, succession.dump())])

    async def prepare(self, view: RedisView[Any], generation: int) -> None:
        """Nothing to lay out: keys come into being as they are written."""

    async def rows(self, view: RedisView[Any], generation: int) -> AsyncIterator[tuple[str, bytes]]:
        """Every key of a generation, without its prefix, and what it holds."""
        keys = Keys(self._prefix, view, generation)
        async for names in self._names(keys.all):
            documents = [name for name in names if not name.startswith(keys.indexes)]
            values = await fetch(self._redis, documents)
            for name, value in zip(documents, values, strict=True):
                if value is not None:  # it may have expired between the two
                    yield name.removeprefix(keys.all), value
            for index in set(names) - set(documents):
                if not index.endswith(":versions"):
                    async for member, score in self._scores(index):
                        yield f"{index.removeprefix(keys.all)} {member}", score

    async def _names(self, prefix: str) -> AsyncIterator[list[str]]:
        """The keys below a prefix; a scan may name one twice."""
        cursor, pattern = b"0", _literally(prefix) + "*"
        while True:
            ((cursor, found),) = await self._redis.ask(
                [("SCAN", cursor, "MATCH", pattern, "COUNT", COMMANDS_MAX)]
            )
            yield [name.decode() for name in found]
            if cursor == b"0":
                return

    async def _scores(self, index: str) -> AsyncIterator[tuple[str, bytes]]:
        """The members of an index; a scan may name one twice."""
        cursor = b"0"
        while True:
            ((cursor, flat),) = await self._redis.ask([("ZSCAN", index, cursor, "COUNT", COMMANDS_MAX)])
            for member, score in zip(flat[::2], flat[1::2], strict=True):
                yield member.decode(), _score(float(score))
            if cursor == b"0":
                return

    def rows_of(self, view: RedisView[Any], folded: Folded) -> Iterable[Expected]:
        keys = Keys("", view, 0)
        for stream, after in folded.after.items():
            name = keys.document(stream).removeprefix(keys.all)
            yield Expected(name, _value(view, after), view.expires_at(after))
            for mark in view.marks(folded.before[stream], after):
                name = f"{keys.index(mark.index).removeprefix(keys.all)} {mark.member}"
                yield Expected(name, None if mark.score is None else _score(mark.score))

    def undeclared(self, view: RedisView[Any], name: str, content: bytes) -> bytes | None:
        """What a row holds beside what its view has declared to be new; None: that is all it holds."""
        if _is_mark(name):
            return None if name.removeprefix("index:{").rpartition("} ")[0] in view.declared else content
        version, _, body = content.partition(b"\n")
        fields = {field: value for field, value in orjson.loads(body).items() if field not in view.declared}
        return b"%b\n%b" % (version, orjson.dumps(fields, option=orjson.OPT_SORT_KEYS))

    # What an audit needs, and healing a key.

    async def held(
        self, view: RedisView[Any], generation: int, names: Sequence[str]
    ) -> dict[str, bytes | None]:
        """What rows hold (None: there is none), by the names that `rows` gives them."""
        keys = Keys(self._prefix, view, generation)
        values: list[Any] = []
        for chunk in chunks(names, COMMANDS_MAX):
            values += await self._redis.ask([_reading(keys, name) for name in chunk])
        return {
            name: value if value is None or not _is_mark(name) else _score(float(value))
            for name, value in zip(names, values, strict=True)
        }

    async def overwrite(
        self, view: RedisView[Any], generation: int, folded: Folded, held: Mapping[str, bytes | None]
    ) -> None:
        """Make rows what this fold, of a stream's whole history, says: those that still hold what they `held`.

        A version that is right or too high would keep the right content out, so a document is replaced in one step,
        and a mark forgotten before it is set. What a projection has written meanwhile stays.
        """
        keys = Keys(self._prefix, view, generation)
        expected = {row.name: row for row in self.rows_of(view, folded)}
        calls = [
            _unmarking(keys, name, seen)
            if _is_mark(name)
            else _replacing(keys, name, seen, expected.get(name))
            for name, seen in held.items()
        ]
        await self._scripts.run([*calls, ("write", *_filling(view, keys, folded))])

    async def switch(
        self, view: RedisView[Any], generation: int, partitions: Iterable[Partition], then: Succession
    ) -> bool:
        """Make a generation the live one, in one step, unless it is behind in any partition."""
        keys = (*self._position_keys(view), Keys(self._prefix, view, 0).succession)
        fields = [f"{topic}/{partition}" for topic, partition in partitions]
        (done,) = await self._scripts.run([("switch", keys, (generation, then.dump(), *fields))])
        return bool(done)

    async def drop(self, view: RedisView[Any], generation: int) -> None:
        """Forget a generation that is not live (any more)."""
        keys = Keys(self._prefix, view, generation)
        async for names in self._names(keys.all):
            await self._redis.ask([("UNLINK", name) for name in names])
        (fields,) = await self._redis.ask([("HKEYS", keys.positions)])
        stale = [field for field in fields if field.startswith(f"{generation}/".encode())]
        await self._redis.ask([("HDEL", keys.positions, field) for field in stale])


class RedisReader:
    """The views of this store, read.

    Which generation is live is asked with each read, in the same round trip: it seldom changes.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._prefix = settings.prefix
        self._redis = settings.connect()
        self._live: dict[str, int] = {}

    async def ping(self) -> None:
        """Raises StoreUnavailable."""
        await self._redis.ask([("PING",)])

    async def close(self) -> None:
        await self._redis.close()

    async def documents(self, view: RedisView[Any], streams: Sequence[str]) -> list[Served | None]:
        values = await self._read(view, lambda keys: [("GET", keys.document(stream)) for stream in streams])
        return [_served(value) for value in values]

    async def document(self, view: RedisView[Any], stream: str) -> Served | None:
        (served,) = await self.documents(view, [stream])
        return served

    async def members(
        self, view: RedisView[Any], index: str, start: int, count: int, *, best_first: bool = False
    ) -> tuple[list[str], int]:
        """`count` members of an index from the `start`-th (from 0) on, and how many there are."""
        range_of = "ZREVRANGE" if best_first else "ZRANGE"

        def read(keys: Keys) -> list[Command]:
            name = keys.index(index)
            return [(range_of, name, start, start + count - 1), ("ZCARD", name)]

        names, total = await self._read(view, read)
        return [name.decode() for name in names], total

    async def are_members(self, view: RedisView[Any], index: str, members: Sequence[str]) -> list[bool]:
        if not members:
            return []
        (scores,) = await self._read(view, lambda keys: [("ZMSCORE", keys.index(index), *members)])
        return [score is not None for score in scores]

    async def caught_up(self, after: Sequence[Position], *views: RedisView[Any]) -> None:
        """Return once these views have seen the receipt; raises NotCaughtUp or ForeignReceipt."""
        if not after:
            return
        ours = of_kinds(after, [view.kind for view in views])
        for view in views:
            await caught_up(
                [position for position in ours if position.stream.startswith(view.kind + "/")],
                lambda streams, view=view: self._versions(view, streams),  # type: ignore[misc]
            )

    async def _versions(self, view: RedisView[Any], streams: Sequence[str]) -> Mapping[str, int]:
        served = await self.documents(view, streams)
        return {stream: one.version if one else 0 for stream, one in zip(streams, served, strict=True)}

    async def _read(self, view: RedisView[Any], read: Callable[[Keys], list[Command]]) -> list[Any]:
        """The answers to `read`, all from the live generation; asked again where that has just changed."""
        while True:
            generation = self._live.get(view.title, 0)
            keys = Keys(self._prefix, view, generation)
            live, *answers = await self._redis.ask([("GET", keys.live), *read(keys)])
            self._live[view.title] = int(live or 0)
            if self._live[view.title] == generation:
                return answers


async def fetch(redis: RedisConnection, names: Sequence[str]) -> list[bytes | None]:
    """The values of keys, asked for together."""
    values: list[bytes | None] = []
    for chunk in chunks(names, COMMANDS_MAX):
        values += await redis.ask([("GET", name) for name in chunk])
    return values


def _served(value: bytes | None) -> Served | None:
    if value is None:
        return None
    version, _, body = value.partition(b"\n")
    return Served(body, int(version))


def _value(view: RedisView[Any], document: Any) -> bytes:
    return b"%d\n%b" % (document.version, view.dump(document))


def _filling(view: RedisView[Any], keys: Keys, folded: Folded) -> tuple[Sequence[str], Sequence[Any]]:
    """The keys and arguments that `_FILL` writes a fold with. Indexes first: should a script end half-way, nobody looks
    again at what a document stood in before once it is there.
    """
    marks: defaultdict[str, list[Any]] = defaultdict(list)
    documents: list[Any] = []
    for stream, after in folded.after.items():
        for mark in view.marks(folded.before[stream], after):
            marks[mark.index] += (mark.member, after.version, "" if mark.score is None else mark.score)
        expires_at = view.expires_at(after)
        documents += (
            after.version,
            view.dump(after),
            "" if expires_at is None else expires_at // 1000,
        )
    names = [name for index in marks for name in (keys.index(index), keys.index_versions(index))]
    arguments: list[Any] = [len(folded.after), len(marks)]
    for members in marks.values():
        arguments += (len(members) // 3, *members)
    return [*names, *map(keys.document, folded.after)], [*arguments, *documents]


def _is_mark(name: str) -> bool:
    return name.startswith("index:")


def _place_of(keys: Keys, name: str) -> tuple[str, str]:
    """Of a mark's name the key of its index, and the member."""
    index, _, member = name.rpartition("} ")
    return f"{keys.all}{index}}}", member


def _reading(keys: Keys, name: str) -> Command:
    return ("ZSCORE", *_place_of(keys, name)) if _is_mark(name) else ("GET", keys.all + name)


def _unmarking(keys: Keys, name: str, seen: bytes | None) -> Call:
    index, member = _place_of(keys, name)
    return "unmark", (index, f"{index}:versions"), (member, seen or "")


def _replacing(keys: Keys, name: str, seen: bytes | None, right: Expected | None) -> Call:
    content = right.content if right and right.content else b""
    forgotten = () if not (right and right.expires_at) else (right.expires_at // 1000,)
    return "replace", (keys.all + name,), (seen or b"", content, *forgotten)


def _score(score: float) -> bytes:
    return repr(float(score)).encode()


def _literally(text: str) -> str:
    """The text as a pattern of SCAN that matches only itself."""
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in text)


def chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
