"""The machine under a moving part: its clock, threads and Kafka clients, so that a simulated one can stand in."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient


def _end_process(status: int) -> NoReturn:
    os._exit(status)


@dataclass(frozen=True)
class Machine:
    """What a process is given. `monotonic` and `sleep` are in seconds; `exit` ends the process at once, without
    cleaning up, with this status.
    """

    consumer: Callable[..., Consumer] = Consumer
    producer: Callable[..., Producer] = Producer
    admin: Callable[..., AdminClient] = AdminClient
    thread: Callable[..., Any] = threading.Thread
    event: Callable[[], Any] = threading.Event
    condition: Callable[[], Any] = threading.Condition
    monotonic: Callable[[], float] = time.monotonic
    wall_time: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    exit: Callable[[int], object] = _end_process


MACHINE = Machine()
"""The one this code really runs on."""
