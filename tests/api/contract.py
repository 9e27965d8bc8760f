"""The API's contract held against a real process: who calls, what is sent, and what every answer must be."""

import re
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias, get_args
from urllib.parse import quote

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests.auth import AuthBase
from schemathesis import APIOperation, BaseSchema, GenerationMode, Response
from schemathesis.checks import CheckFunction, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok

from api.security import Role
from ops import tokens
from ops.payment_sandbox.webhooks import read_secrets, sign
from tests.api.promises import AnyCase

WEBHOOKS = "/v1/webhooks/payments"
SIGNED = {"webhook-id", "webhook-timestamp", "webhook-signature"}
AT_A_TIME = 6
PATIENCE_S = 30.0
"""Whoever hears nothing for so long was left hanging."""

AnyOperation: TypeAlias = APIOperation[Any, Any, Any, Any]
Caller: TypeAlias = str
"""A role, or one of these."""
Asked: TypeAlias = tuple[AnyCase, Caller]
NOBODY, FORGER = "nobody", "forger"
SUBJECTS: Mapping[str, str] = {"customer": "ben", "merchant": "anna"}

SHELF = ("85123A", "BANK CHARGES", "gift_0001_20")
CARDS = ("tok_ok", "tok_ok", "tok_declined")
OURS = re.compile("(product|stock|cart|order)/")
"""How a receipt of a link begins, unlike one that was made up."""

schemathesis.openapi.format(
    "sku",
    st.text(
        st.characters(exclude_categories=("C", "Z"), exclude_characters="/"), min_size=1, max_size=64
    ).filter(
        lambda sku: sku not in (".", "..")  # a client's library takes such a step before it asks
    ),
)


def rightful(operation: AnyOperation) -> Caller:
    """For whom the operation is, in the first place."""
    of_merchants = operation.tags and {"inventory", "catalog"} & set(operation.tags)
    return "merchant" if of_merchants or operation.path.endswith("/shipment") else "customer"


def callers(operation: AnyOperation) -> st.SearchStrategy[Caller]:
    """Mostly who may; and everybody else."""
    return st.sampled_from([rightful(operation)] * 4 + [*get_args(Role), NOBODY, FORGER])


class Credentials(AuthBase):
    """Says who calls; what has a webhook's headers is signed as the provider signs it, or by a forger."""

    def __init__(self, token: str, secrets: Sequence[bytes]) -> None:
        self._token = token
        self._secrets = secrets

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if {name.lower() for name in request.headers} >= SIGNED:
            body: Any = request.body or b""
            content: bytes = body if isinstance(body, bytes) else body.encode()
            request.headers.update(sign(self._secrets, uuid.uuid4().hex, int(time.time()), content))
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def credentials(jwks: Path, secrets: Path, elsewhere: Path) -> Mapping[Caller, Credentials]:
    """Of everybody; a forger's are of a key pair made `elsewhere`."""
    tokens.ensure_keys(elsewhere)
    ours = read_secrets(secrets)
    issued = {
        role: tokens.issue(
            jwks, role, SUBJECTS.get(role, role), backdate=role == "customer", ttl_s=tokens.DAYS_MAX_S
        )
        for role in get_args(Role)
    }
    forged = tokens.issue(elsewhere, "merchant", "anna")
    return {
        **{role: Credentials(token, ours) for role, token in issued.items()},
        NOBODY: Credentials("", []),
        FORGER: Credentials(forged, [b"no secret of ours, but long enough"]),
    }


@dataclass
class Contract:
    """One API process and its document. `seen` counts the answers by operation and status."""

    url: str
    schema: BaseSchema
    who: Mapping[Caller, Credentials]
    patient: bool
    seen: Counter[tuple[str, int]] = field(default_factory=Counter)
    _counting: Lock = field(default_factory=Lock)

    def operations(self) -> list[AnyOperation]:
        return [found.ok() for found in self.schema.get_all_operations() if isinstance(found, Ok)]

    def writes(self) -> list[AnyOperation]:
        """All that somebody with a token asks for."""
        asked = [one for one in self.operations() if one.method != "get"]
        return [one for one in asked if not one.path.startswith(WEBHOOKS)]

    def ask(self, case: AnyCase, caller: Caller) -> Response:
        """The answer; who is asked to come again does so, if this process is one that has all its stores."""
        gives_up_at = time.monotonic() + PATIENCE_S
        while self._is_later(answered := self._ask(case, caller)) and time.monotonic() < gives_up_at:
            time.sleep(float(answered.headers["retry-after"][0]))
        return answered

    def _is_later(self, answered: Response) -> bool:
        """A machine that is starved may not confirm in time; a receipt that was made up is waited for in vain."""
        later = self.patient and answered.status_code == 503
        return later and answered.json().get("type") not in (None, "/problems/view-behind")

    def _ask(self, case: AnyCase, caller: Caller) -> Response:
        with requests.Session() as session:
            session.trust_env = False
            session.auth = self.who[caller]
            response = case.call(base_url=self.url, session=session, timeout=PATIENCE_S)
        with self._counting:
            self.seen[case.operation.label, response.status_code] += 1
        return response

    def hold(self, case: AnyCase, response: Response, promises: Sequence[CheckFunction]) -> None:
        """Raises what Schemathesis raises, with the request that broke a promise."""
        case.validate_response(response, checks=list(promises), transport_kwargs={"base_url": self.url})

    def tried(self, operation: AnyOperation) -> int:
        return sum(count for (label, _), count in self.seen.items() if label == operation.label)

    def table(self) -> str:
        """What was answered how often: a line for each operation."""
        return "\n".join(self._line(operation) for operation in self.operations())

    def _line(self, operation: AnyOperation) -> str:
        of_it = sorted((status, n) for (label, status), n in self.seen.items() if label == operation.label)
        shares = ", ".join(f"{status}: {n}" for status, n in of_it)
        return f"{operation.label:48} {self.tried(operation):6}   {shares}"


def opened(url: str, who: Mapping[Caller, Credentials], *, patient: bool) -> Contract:
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=schemathesis.Config())
    config = schema.config
    config.generation.update(with_security_parameters=False)  # who calls is said by us
    # A version that is not there is answered with 412, a body that is too large with 413.
    config.checks.negative_data_rejection.expected_statuses = [
        "400",
        "401",
        "403",
        "404",
        "412",
        "413",
        "422",
    ]
    config.phases.examples.enabled = config.phases.fuzzing.enabled = False  # pytest's part is the coverage
    return Contract(url, schema, who, patient)


def takes_nothing(operation: AnyOperation) -> bool:
    """There is one request for it and no other."""
    raw = operation.definition.raw
    return not raw.get("parameters") and "requestBody" not in raw


def each_example(
    operation: AnyOperation, examples: int, do: Callable[[AnyCase, Caller], None], *, seeded: bool
) -> None:
    """Half of the examples are as the document allows, half are not; if seeded always the same ones."""
    for mode in GenerationMode:
        if mode is GenerationMode.NEGATIVE and takes_nothing(operation):
            continue
        strategy = operation.as_strategy(generation_mode=mode).map(at_home)
        settings(_SETTINGS, max_examples=-(-examples // 2), derandomize=seeded)(
            given(case=strategy, caller=callers(operation))(do)
        )()


def first_example(operation: AnyOperation) -> AnyCase:
    """As the document allows it."""
    cases: list[AnyCase] = []
    each_example(operation, 2, lambda case, caller: cases.append(case), seeded=True)
    return cases[0]


_SETTINGS = settings(
    database=None,
    deadline=None,
    phases=[Phase.generate],  # what broke a promise is shown as it was: to make it smaller takes long
    suppress_health_check=list(HealthCheck),
)


def examples_of_all(contract: Contract, examples: int, *, seeded: bool = False) -> list[Asked]:
    """Of every operation so many. They are made before they are sent: Hypothesis wants one thread, servers many."""
    found: list[Asked] = []
    for operation in contract.operations():
        each_example(operation, examples, lambda case, caller: found.append((case, caller)), seeded=seeded)
    return found


def ask_all(
    contract: Contract,
    examples: Sequence[Asked],
    promises: Sequence[CheckFunction],
    at_a_time: int = AT_A_TIME,
) -> list[float]:
    """How long each answer took, in seconds. Raises all that broke a promise, the first of each operation."""
    broken: dict[str, BaseException] = {}

    def ask(one: Asked) -> float:
        case, caller = one
        answered = contract.ask(case, caller)
        try:
            contract.hold(case, answered, promises)
        except FailureGroup as failure:
            broken.setdefault(case.operation.label, failure)
        return answered.elapsed

    with ThreadPoolExecutor(at_a_time) as pool:
        took_s = list(pool.map(ask, examples))
    if broken:
        raise BaseExceptionGroup("promises were broken", list(broken.values()))
    return took_s


def walk(
    contract: Contract, walks: int, steps: int, promises: Sequence[CheckFunction], *, seeded: bool
) -> None:
    """Follow the document's links from answer to answer, as whoever may."""

    class Walk(contract.schema.as_state_machine()):  # type: ignore[misc]  # it is made from the document
        def before_call(self, case: AnyCase) -> None:
            at_home(case)

        def call(self, case: AnyCase, **_: object) -> Response:
            return contract.ask(case, rightful(case.operation))

        def validate_response(self, response: Response, case: AnyCase, **_: object) -> None:
            contract.hold(case, response, promises)

    Walk.run(settings=settings(_SETTINGS, max_examples=walks, stateful_step_count=steps, derandomize=seeded))


def at_home(case: AnyCase) -> AnyCase:
    """Among what is generated freely some is put that exists here: or no cart would ever be filled, no order paid."""
    if case.meta is None or case.meta.generation.mode.is_negative:
        return case
    body = _in_whole_numbers(case.body)
    if isinstance(body, dict | list):  # what is not there stays unset
        case.body = body
    luck = zlib.crc32(repr((case.path_parameters, sorted(case.headers.items()), body)).encode())
    _with_usual_headers(case, luck)
    if luck % 4:
        _with_what_is_here(case, body, luck)
    return case


def _with_usual_headers(case: AnyCase, luck: int) -> None:
    """A key of its own, mostly; and what mostly leads to a refusal seldom."""
    if "Idempotency-Key" in case.headers and luck % 8:
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    rare = {"If-Match", "Daybook-Occurred-At"}
    if not OURS.match(case.headers.get("Daybook-After", "")):
        rare.add("Daybook-After")
    for name in rare if luck % 4 else ():
        case.headers.pop(name, None)


def _with_what_is_here(case: AnyCase, body: Any, luck: int) -> None:
    path = case.operation.path
    if "customer_id" in case.path_parameters:
        case.path_parameters["customer_id"] = SUBJECTS["customer"]
    if path.endswith("/items") and isinstance(body, list):
        for number, item in enumerate(body):
            item["sku"] = SHELF[(luck + number) % len(SHELF)]
    if path.endswith("/checkout"):
        body["payment_token"] = CARDS[luck % len(CARDS)]


def _in_whole_numbers(body: Any) -> Any:
    """To a schema 1.0 is an integer, to us it is none."""
    match body:
        case float() if body.is_integer():
            return int(body)
        case dict():
            return {name: _in_whole_numbers(value) for name, value in body.items()}
        case list():
            return [_in_whole_numbers(value) for value in body]
        case _:
            return body


def stock_the_shelf(contract: Contract) -> None:
    """What `at_home` puts into carts can be bought, as everybody sees."""
    for sku in SHELF:
        product = {"name": sku, "price": 255, "currency": "GBP"}
        published = send(contract, "PUT", f"/v1/products/{quote(sku)}", product)
        send(
            contract,
            "POST",
            f"/v1/inventory/{quote(sku)}/receipts",
            {"document": "opening", "quantity": 1_000_000},
        )
        after = {"Daybook-After": published.headers["Daybook-Receipt"]}
        assert requests.get(f"{contract.url}/v1/products/{quote(sku)}", headers=after, timeout=PATIENCE_S).ok


def send(contract: Contract, method: str, path: str, body: Any) -> requests.Response:
    headers, by = {"Idempotency-Key": uuid.uuid4().hex}, contract.who["merchant"]
    gives_up_at = time.monotonic() + PATIENCE_S
    while True:
        answered = requests.request(
            method, contract.url + path, json=body, headers=headers, auth=by, timeout=PATIENCE_S
        )
        if answered.status_code != 503 or time.monotonic() > gives_up_at:
            assert answered.ok, answered.text
            return answered
        time.sleep(float(answered.headers["Retry-After"]))
