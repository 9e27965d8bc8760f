"""Avro's binary encoding, read into rows: one tuple for each message, ready to be turned into columns."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from itertools import chain, groupby
from typing import Any, TypeAlias, get_type_hints

from schemas.avro_reader import PLAIN, Compiler
from schemas.personal import VEILED, Personal

Row: TypeAlias = tuple[Any, ...]
"""The fields of `meta`, then the message's own. A text is its UTF-8 bytes, which nobody has looked at yet; a record is
a tuple of its fields, a list one of its items.
What is personal is veiled.
"""

ReadRows: TypeAlias = Callable[[Sequence[bytes], list[Row]], None]
"""Appends a row for each value. Raises one of MALFORMED; as many rows as were read before stand in the list then."""


@cache
def compile_rows(message: type, meta: type, begin: int) -> ReadRows:
    """The reader of values of one message class, in today's shape, whose datum begins at `begin` (no state records)."""
    return _RowCompiler().rows(message, meta, begin)


class _RowCompiler(Compiler):
    # To decode a text costs as much as to read it; who makes columns checks and copies the bytes at once.
    plain = PLAIN | {str: PLAIN[bytes], Personal: (*PLAIN[bytes], f"{{to}} = {VEILED.encode()!r}")}

    def rows(self, message: type, meta: type, begin: int) -> ReadRows:
        told, own = self._fields(meta), self._fields(message)
        body = [
            f"at = {begin}",
            *self._read_meta(told),
            *(line for variable, hint in own for line in self._value(hint, variable)),
            "if at != len(value): raise ValueError(f'{len(value)} bytes, not {at}')",
            f"append(({', '.join(variable for variable, _ in (*told, *own))},))",
        ]
        loop = ["append, same = rows.append, b''", "for value in values:", *(f"    {line}" for line in body)]
        return self._function("values, rows", loop)  # type: ignore[no-any-return]

    def _fields(self, cls: type) -> list[tuple[str, Any]]:
        """A variable for each field, and its type."""
        hints = get_type_hints(cls, include_extras=True)
        return [(self._fresh(), hints[field.name]) for field in fields(cls)]

    def _read_meta(self, told: list[tuple[str, Any]]) -> list[str]:
        """The longest row of texts (command, cause, actor, batch) is the same in all events of one command, which
        stand side by side: it is read once, and then only compared.
        """
        runs = [list(run) for is_text, run in groupby(told, key=lambda one: one[1] is str) if is_text]
        longest = max(runs, key=len)
        first, after = told.index(longest[0]), told.index(longest[-1]) + 1
        lines = [[*self._value(hint, variable)] for variable, hint in told]
        return [
            *chain.from_iterable(lines[:first]),
            "if same and value.startswith(same, at): at += len(same)",
            "else:",
            "    begin = at",
            *(f"    {line}" for line in chain.from_iterable(lines[first:after])),
            "    same = value[begin:at]",
            *chain.from_iterable(lines[after:]),
        ]

    def _made(self, _cls: type, to: str, variables: dict[str, str]) -> list[str]:
        return [f"{to} = ({', '.join(variables.values())},)"]
