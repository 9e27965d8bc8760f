"""Being interrupted once: the first Ctrl-C or SIGTERM ends a verb, and nothing interrupts its cleaning up."""

import signal
import sys
from types import FrameType


def be_interrupted_once() -> None:
    """From now on the first signal raises KeyboardInterrupt and the next ones are ignored."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for told in (signal.SIGINT, signal.SIGTERM):
            signal.signal(told, signal.SIG_IGN)
        print("interrupted: stopping what was begun", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, interrupt)
