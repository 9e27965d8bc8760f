"""The stories of row F1: every type of command is spoken, and each has an effect when nobody is killed."""

from commands.registry import DECIDERS
from ops.faults.stories import told
from schemas.cart import ExpireCart
from schemas.inventory import ExpireReservation
from schemas.language import AGGREGATES
from schemas.meta import HOUR, Micros
from schemas.order import ExpireOrder, RemindOrder
from schemas.payment import RepeatPaymentRequest
from tests.specification import Actor, Given

NOW = Micros(10 * HOUR)


def test_every_type_of_command_is_spoken():
    spoken = {type(said.body) for said in told("a", NOW)}
    assert spoken == {command for aggregate in AGGREGATES.values() for command in aggregate.commands}


def test_every_command_has_an_effect_save_the_deadlines_that_are_not_due():
    worlds = {name: Given(DECIDERS[name]) for name in AGGREGATES}
    idle = set()
    for said in told("a", NOW):
        outcome = worlds[said.aggregate].when(said.body, Actor(*said.actor), NOW, said.command_id)
        assert outcome.rejection is None, said
        if not outcome.events:
            idle.add(type(said.body))
    assert idle == {ExpireCart, ExpireReservation, ExpireOrder, RemindOrder, RepeatPaymentRequest}
