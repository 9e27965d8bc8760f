"""The console is a process of its own, which may read the log and verify; who asks for it here is sent there."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

routes = APIRouter()


@routes.get("/console", include_in_schema=False)
async def send_to_console(request: Request) -> Response:
    """On the same host, by the name that the caller knows it by."""
    port: int = request.app.state.console
    return RedirectResponse(request.url.replace(port=port, query=""), 307)
