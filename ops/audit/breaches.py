"""What broke, law by law: the first few in words, the rest as a number."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

HOLDS = "holds"
_NAMED = 5


class Breaches:
    """Collects breaches; however many there are, only the first few of each law are kept."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = defaultdict(int)
        self._first: dict[str, list[str]] = defaultdict(list)

    def add(self, law: str, what: str, cause: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002  # for those who tell it on
        """`cause` is the `meta` of the event that breaks the law, or names at least its stream, if there is one."""
        self._counts[law] += 1
        if len(self._first[law]) < _NAMED:
            self._first[law].append(what)

    def verdicts(self, laws: Iterable[str]) -> dict[str, str]:
        """Of each law "holds", or what broke."""
        return {law: self._verdict(law) for law in laws}

    def _verdict(self, law: str) -> str:
        count = self._counts.get(law, 0)
        if not count:
            return HOLDS
        more = f" (and {count - _NAMED:,} more)" if count > _NAMED else ""
        return "; ".join(self._first[law]) + more
