"""What every answer of the API must be, whatever was asked: the checks that Schemathesis has, and our own."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from schemathesis import Case, Response
from schemathesis.checks import CheckContext, CheckFunction
from schemathesis.specs.openapi import checks as openapi

from api.problems import MEDIA_TYPE, documented

AnyCase: TypeAlias = Case[Any]

AT_ONCE_S = 2.0
"""So soon it is told that a store is down."""
AT_LAST_S = 8.0
"""Nobody is left hanging for longer, on a machine that others use as well."""


def is_served(_: CheckContext, response: Response, case: AnyCase) -> None:
    """No 5xx; but a view that is behind a receipt says so."""
    if response.status_code >= 500:
        assert response.status_code == 503, response.text
        assert response.json()["type"] == "/problems/view-behind", response.text
        assert "Daybook-After" in case.headers


def is_served_or_asked_to_come_again(_: CheckContext, response: Response, case: AnyCase) -> None:
    """While a store is down: no 5xx but 503 with Retry-After, and no answer that never comes."""
    if response.status_code >= 500:
        assert response.status_code == 503, response.text
        assert response.headers["retry-after"]
    assert response.elapsed <= AT_LAST_S, f"after {response.elapsed:.2f} s"


def tells_a_problem(_: CheckContext, response: Response, case: AnyCase) -> None:
    """Every error is one of RFC 9457, of a type that explains itself; health has a document of its own."""
    if response.status_code < 400 or case.operation.path.startswith("/health"):
        return
    assert response.headers["content-type"] == [MEDIA_TYPE]
    problem = response.json()
    page = documented()[problem["type"].removeprefix("/problems/")]
    assert (problem["title"], problem["status"]) == (page["title"], response.status_code)
    assert problem["status"] == page["status"] or page["status"] == 503
    assert problem["detail"]
    assert problem["instance"].startswith("/")


MISUNDERSTOOD = {
    "/problems/malformed-request",
    "/problems/invalid-request",
    "/problems/idempotency-key-missing",
}


def understands_what_it_allows(_: CheckContext, response: Response, case: AnyCase) -> None:
    """What fits the document is not called malformed. A cursor must be one of ours, and a time lies in the past:
    that no schema can say.
    """
    free = "cursor" in case.query or "Daybook-Occurred-At" in case.headers
    if (
        case.meta
        and case.meta.generation.mode.is_positive
        and not free
        and response.status_code in (400, 422)
    ):
        assert response.json()["type"] not in MISUNDERSTOOD, response.text


def answers_only_what_is_documented(_: CheckContext, response: Response, case: AnyCase) -> None:
    """No field of an answer is missing in the document."""
    answers = case.operation.definition.raw["responses"]
    content = answers.get(str(response.status_code), {}).get("content", {})
    if "application/json" in content:
        undocumented = set(_fields(response.json())) - set(_named(content["application/json"]["schema"]))
        assert not undocumented, undocumented


def _fields(document: Any, at: str = "") -> Iterator[str]:
    match document:
        case dict():
            for name, value in document.items():
                yield f"{at}.{name}"
                yield from _fields(value, f"{at}.{name}")
        case list():
            for one in document:
                yield from _fields(one, f"{at}[]")


def _named(schema: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for name, value in schema.get("properties", {}).items():
        yield f"{at}.{name}"
        yield from _named(value, f"{at}.{name}")
    if "items" in schema:
        yield from _named(schema["items"], f"{at}[]")
    for one in schema.get("anyOf", ()):
        yield from _named(one, at)


KEPT: Sequence[CheckFunction] = (
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_headers_conformance,
    openapi.response_schema_conformance,
    openapi.negative_data_rejection,
    openapi.unsupported_method,
    openapi.missing_required_header,
    tells_a_problem,
    understands_what_it_allows,
    answers_only_what_is_documented,
)
"""Left out are Schemathesis' checks of what is no promise here: that a retired product is gone, and that a view
shows what was just written to who does not ask for it with a receipt.
"""
