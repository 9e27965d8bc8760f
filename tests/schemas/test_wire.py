"""The wire, byte for byte: whoever changes it by accident finds out here, before an outside reader does."""

from typing import Any

import pytest

from schemas.codec import Codec, Decoded
from schemas.decisions import Decided, Decisions
from schemas.inventory import ReserveStock, StockItem, StockReserved
from schemas.letters import DeadLetter
from schemas.meta import Micros
from schemas.position import WriterPosition
from schemas.values import Line, Position, RefusedLine
from tests.messages import COMMAND, EVENT, RECORD

AT = Micros(1_291_192_560_000_000)

RESERVE = ReserveStock("order", "main", (Line(1, "85123A", 6), Line(2, "71053", 8)), 1, AT)
DECIDED = Decided(
    command_id=COMMAND.command_id,
    type="ReserveStock",
    stream="stock/85123A/main",
    lines=(1, 2),
    attempt=1,
    reply_to="order/o",
    fingerprint="",
    outcome="refused",
    status="",
    refused=(RefusedLine(2, "71053", 8, 3),),
    rejection=None,
    positions=(Position("stock/71053/main", 5),),
    correlation_id="c",
    traceparent=COMMAND.traceparent,
    occurred_at=None,
    recorded_at=AT,
    sender="",
)

MESSAGES: dict[str, tuple[Any, ...]] = {
    "command": (RESERVE, COMMAND),
    "event": (StockReserved("85123A", "main", 100, 6, 0, 0, "order", 1, "claim", 6, AT), EVENT),
    "state": (StockItem(100, 6, 0, 0, 2, 10), RECORD, 4, bytes(range(32))),
    "decisions": (Decisions(bytes(range(16)), (DECIDED,)), RECORD),
    "position": (WriterPosition(17, 4, 3, 1), RECORD),
    "dead letter": (
        DeadLetter(
            "redis", "daybook.events.cart", 1, 42, "", "not Avro", b"k\xff", b"\x00\x01", released=False
        ),
        RECORD,
    ),
}

GOLDEN: dict[str, str] = {
    "command": (
        "c301a4f41b98481f53754830623163366666362d346431642d356430652d386636612d30613162326333643465356622"
        "73746f636b2f3835313233412f6d61696e6e30302d346266393266333537376233346461366133636539323964306530"
        "65343733362d303066303637616130626139303262372d303180d8e6e1a195cb0480e6b4fea195cb0400020602546f72"
        "6465722f35613565346331652d303030302d353030302d383030302d3030303030303030303030314863307272656c61"
        "742d653030302d353030302d383030302d3030303030303030303030314863613035656430302d303030302d35303030"
        "2d383030302d303030303030303030303031087361676110636865636b6f7574000a6f72646572086d61696e04020c38"
        "35313233410c040a373130353310000280f0809ea695cb04"
    ),
    "event": (
        "c30199483243514c876d4865306530653065302d303030302d353030302d383030302d30303030303030303030303122"
        "73746f636b2f3835313233412f6d61696e0880d8e6e1a195cb0480e1f5e1a195cb044830623163366666362d34643164"
        "2d356430652d386636612d3061316232633364346535664863307272656c61742d653030302d353030302d383030302d"
        "3030303030303030303030314830623163366666362d346431642d356430652d386636612d3061316232633364346535"
        "66087361676110636865636b6f75744862613763343030302d303030302d353030302d383030302d3030303030303030"
        "3030303100366e30302d34626639326633353737623334646136613363653932396430653065343733362d3030663036"
        "37616130626139303262372d30314000000000000000000000000000000000000000000000000000000000000000000c"
        "383531323341086d61696ec8010c00000a6f72646572020a636c61696d0c80f0809ea695cb04"
    ),
    "state": (
        "c30156c1d98f448a27bc2273746f636b2f3835313233412f6d61696e80e1f5e1a195cb044862613763343030302d3030"
        "30302d353030302d383030302d3030303030303030303030310840000102030405060708090a0b0c0d0e0f1011121314"
        "15161718191a1b1c1d1e1fc8010c00000414"
    ),
    "decisions": (
        "c301780620894c9ebd2f2273746f636b2f3835313233412f6d61696e80e1f5e1a195cb044862613763343030302d3030"
        "30302d353030302d383030302d30303030303030303030303120000102030405060708090a0b0c0d0e0f024830623163"
        "366666362d346431642d356430652d386636612d306131623263336434653566185265736572766553746f636b227374"
        "6f636b2f3835313233412f6d61696e0402040002020e6f726465722f6f000e726566757365640002040a373130353310"
        "060000022073746f636b2f37313035332f6d61696e0a0002636e30302d34626639326633353737623334646136613363"
        "653932396430653065343733362d303066303637616130626139303262372d30310080f0809ea695cb040000"
    ),
    "position": (
        "c301dcc52b4932ad7a762273746f636b2f3835313233412f6d61696e80e1f5e1a195cb044862613763343030302d3030"
        "30302d353030302d383030302d30303030303030303030303122080602"
    ),
    "dead letter": (
        "c301c741adb10c13f4132273746f636b2f3835313233412f6d61696e80e1f5e1a195cb044862613763343030302d3030"
        "30302d353030302d383030302d3030303030303030303030310a726564697326646179626f6f6b2e6576656e74732e63"
        "617274025400106e6f74204176726f046bff04000100"
    ),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_is_written_as_ever(kind: str):
    body, meta, *head = MESSAGES[kind]
    assert Codec().encode(body, vars(meta), *head).hex() == GOLDEN[kind]


@pytest.mark.parametrize("kind", MESSAGES)
def test_what_was_written_ever_so_long_ago_is_read(kind: str):
    body, meta, *head = MESSAGES[kind]
    assert Codec().decode(bytes.fromhex(GOLDEN[kind])) == Decoded(meta, body, *head)


def test_the_bytes_are_what_avros_specification_says():
    """The beginning of the event, taken apart by hand."""
    value = bytes.fromhex(GOLDEN["event"])
    assert value[:2] == b"\xc3\x01"
    # A string is its length, in zigzag, and its UTF-8; the first of `meta`, then the second.
    assert value[10:11] == bytes([2 * len(EVENT.event_id)])
    assert value[11:47].decode() == EVENT.event_id
    assert value[47:48] == bytes([2 * len(EVENT.stream)])
    # At its end line 1, the claim, 6 units, and a time: a long in zigzag, seven bits per byte, the lowest first.
    assert value[-16:-8] == b"\x02" + b"\x0aclaim" + b"\x0c"
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(value[-8:])) == 2 * AT
