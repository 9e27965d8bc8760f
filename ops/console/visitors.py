"""Who visits: a bearer token, kept in a cookie that no script reads and no other site sends."""

import re
from typing import Annotated
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from api.problems import UnauthorizedError
from api.security import TOKEN_CHARS_MAX, Principal, Role, Verifier
from ops.console.pages import page

COOKIE = "daybook_console"
HOME = "/console"
FORM_BYTES_MAX = 2 * TOKEN_CHARS_MAX
_INSIDE = re.compile(HOME + r"([/?][\x21-\x5b\x5d-\x7e]*)?")
"""A path of ours: nothing that a browser might take for another host."""

READERS: frozenset[Role] = frozenset({"auditor", "merchant", "operator"})

routes = APIRouter(prefix=HOME)


class SignInNeeded(Exception):
    """Nobody is signed in here, or not any more; the message says which, empty if nobody ever was."""


class ForeignForm(Exception):
    """The form that was sent does not stand on a page of ours."""


class TurnedAway(Exception):
    """A good token, of a role that the console is not for; the message says so."""


async def signed_in(request: Request) -> Principal:
    """Raises SignInNeeded, TurnedAway."""
    token = request.cookies.get(COOKIE, "")
    if not token:
        raise SignInNeeded
    try:
        visitor = _reader(request, token)
    except UnauthorizedError as error:
        raise SignInNeeded(f"{error.detail} Please sign in again.") from None
    request.state.visitor = visitor
    return visitor


async def own_form(request: Request) -> None:
    """A form says where it stood; that a cookie came with it is not enough. Raises ForeignForm."""
    host = request.headers.get("host", "")
    if request.headers.get("origin") not in (f"http://{host}", f"https://{host}"):
        raise ForeignForm("This form was not sent from a page of the console; nothing was done.")


Visitor = Annotated[Principal, Depends(signed_in)]
OwnForm = Depends(own_form)


@routes.get("/sign-in")
async def show_sign_in(request: Request) -> Response:
    return page(request, "sign_in", next=_way_on(request.query_params.get("next", "")), word="")


@routes.post("/session", dependencies=[OwnForm])
async def sign_in(request: Request) -> Response:
    """The token is verified before it is kept."""
    form = await _small_form(request)
    token, way_on = form.get("token", "").strip().removeprefix("Bearer "), _way_on(form.get("next", ""))
    try:
        _reader(request, token)
    except UnauthorizedError as error:
        return page(request, "sign_in", 401, next=way_on, word=error.detail)
    except TurnedAway as error:
        return page(request, "sign_in", 403, next=way_on, word=str(error))
    answer = RedirectResponse(way_on, 303)
    secure = _came_by_tls(request)
    answer.set_cookie(COOKIE, token, path=HOME, httponly=True, samesite="strict", secure=secure)
    return answer


@routes.post("/session/end", dependencies=[OwnForm])
async def sign_out() -> Response:
    answer = RedirectResponse(f"{HOME}/sign-in", 303)
    answer.delete_cookie(COOKIE, path=HOME, httponly=True, samesite="strict")
    return answer


async def ask_to_sign_in(request: Request, needed: Exception) -> Response:
    """A page is come back to; a form is not, since what was filled in is lost."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    way_on = asked if request.method == "GET" else HOME
    if not str(needed):
        return RedirectResponse(f"{HOME}/sign-in?next={quote(way_on, safe='')}", 303)
    return page(request, "sign_in", 401, next=way_on, word=str(needed))


def _reader(request: Request, token: str) -> Principal:
    """Raises UnauthorizedError, TurnedAway."""
    if not token:
        raise UnauthorizedError("A token is needed.")
    verifier: Verifier = request.app.state.verifier
    visitor = verifier.principal_of(token)
    if visitor.role not in READERS:
        raise TurnedAway(
            f"The console is for {', '.join(sorted(READERS))}; this token is of the {visitor.role} {visitor.subject}."
        )
    return visitor


def _came_by_tls(request: Request) -> bool:
    """As the browser sees it: TLS ends in front of us, and what reaches us is plain HTTP either way."""
    return request.headers.get("origin", "").startswith("https://")


async def _small_form(request: Request) -> dict[str, str]:
    """The first value of each field; a body that is too long holds none."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            return {}
    return {name: values[0] for name, values in parse_qs(body.decode("ascii", "replace")).items()}


def _way_on(asked: str) -> str:
    """Only within the console: whatever else a link says, nobody is sent elsewhere."""
    return asked if _INSIDE.fullmatch(asked) else HOME
