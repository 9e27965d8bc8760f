"""Old shapes of messages brought to today's: history is never rewritten, it is read anew.

Most changes need nothing here: a new field with a default, or a field that is gone, is what Avro's own schema
resolution is for. What it cannot do, an upcast does; `python -m schemas.compatibility` finds out which is which.
"""

from collections.abc import Callable, Mapping
from typing import Any

Datum = dict[str, Any]
Shape = tuple[str, str]
"""A message's class and the hex fingerprint of the schema it was written with."""


def _adjusted_without_reason(datum: Datum) -> Datum:
    """At first the shop wrote only free text beside an adjustment. The text stays as it was typed; a reason that
    nobody gave is not guessed from it, and nobody could yet say which earlier event is corrected.
    """
    return datum | {"reason": "unknown", "corrects": None}


UPCASTS: Mapping[Shape, Callable[[Datum], Datum]] = {
    ("StockAdjusted", "83bcb11195981b41"): _adjusted_without_reason,
}
"""How the datum of an old shape becomes one of today's. It must set every field that the old shape lacks."""

OLD_READERS_MUST_GO: Mapping[Shape, str] = {}
"""Shapes whose readers cannot read what is written today, and what their owners were told to do about it.

Without a note here the gate refuses the change: analysts load the released `.avsc` and are not ours to restart.
"""
