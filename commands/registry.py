"""All deciders, by aggregate."""

from collections.abc import Mapping

from commands import cart, catalog, inventory, order, payment
from commands.decider import Decider

DECIDERS: Mapping[str, Decider] = {
    module.DECIDER.aggregate: module.DECIDER for module in (catalog, cart, order, inventory, payment)
}
