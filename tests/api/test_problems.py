"""Every problem has a stable type that explains itself."""

import inspect

from api.problems import REJECTIONS, documented, slug_of
from commands import rejections
from commands.rejections import Rejection
from tests.api.conftest import Window


def _rejections() -> dict[str, str]:
    kinds = Rejection.__subclasses__()
    concrete = [c for kind in kinds for c in kind.__subclasses__()]
    assert all(inspect.getmodule(c) is rejections for c in concrete)
    return {c.__name__: c.kind for c in concrete}


def test_every_rejection_of_the_deciders_is_documented_with_its_kind():
    # CommandRefused is the API's own word for an outcome `refused`.
    assert {name: kind for name, kind in REJECTIONS.items() if name != "CommandRefused"} == _rejections()


def test_a_slug_is_the_name_in_small_letters():
    assert slug_of("CartIsCheckedOut") == "cart-is-checked-out"


async def test_a_type_can_be_asked_for_and_explains_itself(window: Window):
    for slug in documented():
        answered = await window.ask("GET", f"/problems/{slug}")
        assert answered.status == 200
        assert answered.json["meaning"]


async def test_an_unknown_type_is_a_404(window: Window):
    assert (await window.ask("GET", "/problems/nothing")).status == 404


async def test_openapi_documents_every_route_with_its_problems_and_an_example(window: Window):
    document = (await window.ask("GET", "/openapi.json")).json
    writes = [
        operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path.startswith("/v1") and not path.startswith("/v1/webhooks") and method != "get"
    ]
    assert len(writes) == 13
    for operation in writes:
        assert {"200", "202", "400", "401", "403", "404", "408", "409", "412", "413", "422", "503"} <= set(
            operation["responses"]
        )
        assert "Idempotency-Key" in [parameter["name"] for parameter in operation["parameters"]]
        assert operation["security"] == [{"bearer": []}]
        assert operation["tags"]
        assert operation["responses"]["200"]["content"]["application/json"]["example"]
    assert "Problem" in document["components"]["schemas"]
