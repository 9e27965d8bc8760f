"""A bounded cache in two generations: what is used stays, what is not goes."""

from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """Holds at most about twice `limit` units of size.

    When the young generation is full it becomes the old one, and the old one is dropped; a hit in the old one makes
    a value young again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._young: dict[str, tuple[V, int]] = {}
        self._old: dict[str, tuple[V, int]] = {}
        self._size = 0

    def get(self, key: str) -> V | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.pop(key, None)
            if found is None:
                return None
            self._add(key, found)
        return found[0]

    def put(self, key: str, value: V, size: int) -> None:
        self._old.pop(key, None)
        self._add(key, (value, size))

    def drop(self, key: str) -> None:
        self._old.pop(key, None)
        gone = self._young.pop(key, None)
        if gone is not None:
            self._size -= gone[1]

    def _add(self, key: str, entry: tuple[V, int]) -> None:
        before = self._young.get(key)
        self._size += entry[1] - (before[1] if before else 0)
        self._young[key] = entry
        if self._size > self._limit:
            self._old, self._young, self._size = self._young, {}, 0
