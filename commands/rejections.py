"""Why a command has no effect: noun phrases for the caller, each with the kind of thing that it is.

Rejection
├── NotFound         UnknownProduct, UnknownStockItem, UnknownCart, UnknownCartItem, UnknownOrder, UnknownPayment
├── Conflict         CartIsCheckedOut, CartIsEmpty, CartIsClosed, OrderIsBeingShipped, …
├── Unprocessable    CommandReused, TooManyLines, QuantityTooLarge, CurrencyMismatch
├── Precondition     VersionConflict
├── Expired          CommandExpired
└── Internal         InternalError
"""

from dataclasses import dataclass
from typing import ClassVar

from schemas.decisions import Rejected, RejectionKind


@dataclass(frozen=True)
class Rejection:
    """`detail` is for a person; a program goes by the class's name and its `kind`."""

    kind: ClassVar[RejectionKind]
    detail: str

    def as_rejected(self) -> Rejected:
        return Rejected(type(self).__name__, self.kind, self.detail)


class NotFound(Rejection):
    kind = "not_found"


class Conflict(Rejection):
    kind = "conflict"


class Unprocessable(Rejection):
    kind = "unprocessable"


class Precondition(Rejection):
    kind = "precondition"


class Expired(Rejection):
    kind = "expired"


class Internal(Rejection):
    kind = "internal"


class UnknownProduct(NotFound): ...


class UnknownStockItem(NotFound): ...


class StockBelowEmptyShelf(Conflict):
    """An adjustment that would leave fewer than no units on the shelf."""


class UnknownCart(NotFound):
    """Also another owner's cart: whose it is, is nobody's business."""


class UnknownCartItem(NotFound): ...


class CartIsEmpty(Conflict): ...


class CartIsCheckedOut(Conflict):
    """It stays as it is unless its order is rejected or cancelled."""


class CartIsClosed(Conflict):
    """It was completed, or it expired."""


class TooManyLines(Unprocessable): ...


class QuantityTooLarge(Unprocessable): ...


class CurrencyMismatch(Unprocessable): ...


class UnknownOrder(NotFound):
    """Also another owner's order."""


class UnknownPayment(NotFound): ...


class OrderIsNotConfirmed(Conflict): ...


class OrderIsBeingShipped(Conflict): ...


class OrderIsClosed(Conflict):
    """It was rejected or cancelled."""


class PaymentIsCaptured(Conflict):
    """What was captured is no longer voided, but refunded."""


class PaymentHoldsTooLittle(Conflict):
    """More is asked for than is authorized, or captured, and not given back."""


class VersionConflict(Precondition): ...


class CommandReused(Unprocessable):
    """The same key was sent before with another body."""


class CommandExpired(Expired):
    """It came after its `not_after`."""


class InternalError(Internal): ...
