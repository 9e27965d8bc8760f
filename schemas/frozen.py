"""Frozen dataclasses that are made quickly: a command becomes some ten of them, an event three."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[T]) -> type[T]:
    """`@dataclass(frozen=True)`, with an `__init__` that fills the instance's dict.

    The one of the standard library calls `object.__setattr__` for each field and takes three times as long. Fields
    may have plain defaults; neither factories nor `__post_init__` nor slots.
    """
    made = dataclass(frozen=True)(cls)
    made.__init__ = _filling(made)  # type: ignore[method-assign]  # the same signature, another body
    return made


def _filling(cls: type) -> Callable[..., None]:
    own = fields(cls)
    defaults = {f"_default_{f.name}": f.default for f in own if f.default is not MISSING}
    taken = [f"{f.name}=_default_{f.name}" if f.default is not MISSING else f.name for f in own]
    lines = [f"    own[{f.name!r}] = {f.name}" for f in own]
    source = "\n".join([f"def __init__({', '.join(['self', *taken])}):", "    own = self.__dict__", *lines])
    names: dict[str, Any] = dict(defaults)
    exec(source, names)  # noqa: S102  # from our own classes' field names, as the standard library does it
    init: Callable[..., None] = names["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = vars(cls)["__init__"].__annotations__
    return init
