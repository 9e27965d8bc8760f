"""Law 3, before the order: a cart that is checked out becomes one order, and hears how that ended."""

from collections.abc import Callable

from ops.audit.desk import SAGAS_WITHIN_US, Deadlines, Desk
from ops.audit.wire import Record


class Checkouts:
    """Follows every cart while it is frozen: which order it waits for."""

    def __init__(self, desk: Desk, deadlines: Deadlines) -> None:
        self._breaches = desk.breaches
        self._deadlines = deadlines
        self._frozen = desk.books.table("frozen-carts", tuple)
        """By cart, the order as which it is checked out."""

    def fold(self, name: str, event: Record) -> None:
        match name:
            case "CartCheckedOut":
                self._check_out(event)
            case "CartReopened" | "CartCompleted":
                self._close(name, event)

    def miss(self, order_id: str, placed_at: Callable[[str], int | None]) -> None:
        """The time was up for the order to be placed; `placed_at` tells when it was."""
        if placed_at(order_id) is None:
            what = f"order/{order_id} was checked out and never placed"
            self._breaches.add("3", what, {"stream": f"order/{order_id}"})

    def check_closed(self) -> None:
        """To be asked by who has waited until nothing was owed any more."""
        for cart_id in self._frozen:
            order_id = self._order_of(cart_id)
            what = f"cart/{cart_id} stays checked out as order/{order_id}"
            self._breaches.add("3", what, {"stream": f"cart/{cart_id}"})

    def _check_out(self, event: Record) -> None:
        cart_id, order_id, meta = event["cart_id"], event["order_id"], event["meta"]
        if (before := self._order_of(cart_id)) is not None:
            what = f"cart/{cart_id} was checked out as order/{before} and again as order/{order_id}"
            self._breaches.add("3", what, meta)
        self._frozen[cart_id] = (order_id,)
        self._deadlines.expect("checkout", order_id, meta["recorded_at"] + SAGAS_WITHIN_US)

    def _close(self, name: str, event: Record) -> None:
        cart_id, order_id = event["cart_id"], event["order_id"]
        if self._order_of(cart_id) != order_id:
            what = f"cart/{cart_id}: {name} for order/{order_id}, as which it was not checked out"
            self._breaches.add("3", what, event["meta"])
        self._frozen.pop(cart_id, None)

    def _order_of(self, cart_id: str) -> str | None:
        found = self._frozen.get(cart_id)
        return found[0] if found else None
