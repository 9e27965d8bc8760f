"""`python -m api.main` serves the API in one process, until SIGTERM."""

import asyncio
import gc
import logging
import signal
import sys

import structlog
import uvicorn

from api.app import create_app
from api.settings import Settings, from_environment

GRACE_S = 8
"""For what is in flight when SIGTERM comes; a command is answered or given up within 5."""
LOOK_INTERVAL_S = 1.0


async def serve(settings: Settings) -> int:
    """The exit code: 1 if the process broke in a way that only a new one heals."""
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_config=None,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    serving = asyncio.create_task(server.serve())
    while not serving.done():
        await asyncio.wait({serving}, timeout=LOOK_INTERVAL_S)
        if server.started and app.state.intake.broken:
            server.should_exit = True
    await serving
    return 0 if server.started and not app.state.intake.broken else 1


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    settings = from_environment()
    # What was imported stays for ever: the collector need not look at it again and again.
    gc.freeze()
    # uvicorn raises the signal that ended it once more when all is done; then the exit code is to be ours.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with asyncio.Runner(loop_factory=_loop) as runner:
        sys.exit(runner.run(serve(settings)))


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


if __name__ == "__main__":
    main()
