"""A whole Daybook under a supervisor, as `up` starts it: what is killed, frozen and looked at while callers trade."""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress

import psutil
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public, not marked so

from ops.audit.log_reader import open_log
from ops.audit.views import ReadSide
from ops.demo.performance import everybody, provider_ledger, read_side
from ops.faults.checkers import is_owed
from ops.faults.verdict import CLOCK, RowIsRed, until
from ops.local_stack import QUIETLY, SERVERS
from ops.processes import Started
from ops.roles import ROLES
from ops.running import stack_of
from ops.settings import Settings
from ops.status import role_health, role_report
from ops.supervisor import read_report
from schemas.language import AGGREGATES
from schemas.topics import Topics

STILL_FOR_S = 3.0
QUIET_WITHIN_S = 90.0
SETTLED_WITHIN_S = 90.0
REPLACED_WITHIN_S = 60.0
ANSWER_S = 5.0
ROLE_MB_MAX = 300.0
"""No role takes more, whatever happens."""
SERVER_MB_MAX: Mapping[str, float] = {"kafka": 1_024.0, "cassandra": 1_536.0, "redis": 320.0}
"""What each server was given (`ops/stack/`), with what a JVM needs beside its heap."""


def mb_max(name: str) -> float:
    """What a process may weigh at most."""
    return SERVER_MB_MAX.get(name, ROLE_MB_MAX)


class House:
    """`settings` as `bring_up` returned them; all that it does ends nothing for good: the supervisor is at home."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.topics = Topics(settings.topic_prefix, settings.partitions)
        self._say = say
        self._rss_mb: dict[str, float] = {}

    @property
    def side(self) -> ReadSide:
        return read_side(self.settings)

    def ledger(self) -> list[Mapping[str, object]]:
        return list(provider_ledger(self.settings.provider))

    # Who is there.

    def processes(self) -> dict[str, Started]:
        """Servers and roles that run now, by name."""
        return {one.name: one for one in everybody(self.settings)}

    def process(self, name: str) -> Started:
        found = self.processes().get(name)
        if found is None:
            raise RowIsRed(f"{name} does not run")
        return found

    # What is done to them.

    def kill(self, *names: str) -> list[Started]:
        """SIGKILL, all as close together as can be."""
        return self._signal(signal.SIGKILL, names)

    def await_replaced(self, killed: Collection[Started]) -> None:
        """Until others run in their place: before, whoever asks how they are hears what they said last."""
        pids = {one.pid for one in killed}

        def are_back() -> bool:
            there = self.processes()
            return all(one.name in there and there[one.name].pid not in pids for one in killed)

        until(are_back, REPLACED_WITHIN_S, "who was killed is back", self._say)

    def freeze(self, *names: str) -> list[Started]:
        """SIGSTOP; to be thawed by what it returns, for a name may be somebody else's by then."""
        return self._signal(signal.SIGSTOP, names)

    def thaw(self, frozen: Collection[Started]) -> None:
        for one in frozen:
            with suppress(ProcessLookupError):  # fenced and replaced, or killed, meanwhile
                os.kill(one.pid, signal.SIGCONT)

    def _signal(self, number: signal.Signals, names: Collection[str]) -> list[Started]:
        there = self.processes()
        if missing := set(names) - there.keys():
            raise RowIsRed(f"{', '.join(sorted(missing))} cannot be hit: not running")
        for name in names:
            os.kill(there[name].pid, number)
        return [there[name] for name in names]

    # How they are.

    def sick(self) -> list[str]:
        """Servers that do not answer and roles that are not ready."""
        report = read_report(self.settings.run)
        now, there = time.time(), report.roles if report else []
        roles = {role.name: role_health(self.settings, role, now) for role in there}
        unwell = [name for name in ROLES if roles.get(name) != "ready"]
        return [name for name, server in SERVERS.items() if not server.answers(self._at(name))] + unwell

    def _at(self, server: str) -> str:
        address: str = getattr(self.settings, server)
        return address

    def await_green(self, within_s: float) -> float:
        """Seconds until all answer and all are ready."""
        unwell: list[str] = []

        def is_green() -> bool:
            unwell[:] = self.sick()
            self.weigh()
            return not unwell

        began = time.monotonic()
        try:
            return until(
                is_green, within_s, "all green", lambda word: self._say(f"{word}: {', '.join(unwell)}")
            )
        except RowIsRed:
            took = time.monotonic() - began
            raise RowIsRed(f"not green after {took:.0f} s: {', '.join(unwell)}") from None

    def lag(self, role: str) -> int:
        """How many events the role says that it is behind."""
        report = read_report(self.settings.run)
        found = [one for one in report.roles if one.name == role] if report else []
        return sum(int(role_report(self.settings.run, one).get("lag_events") or 0) for one in found)

    def weigh(self) -> None:
        """Notes what each process weighs now; `heaviest` tells."""
        for name, one in self.processes().items():
            with suppress(psutil.NoSuchProcess):
                self._rss_mb[name] = max(self._rss_mb.get(name, 0.0), _weight_mb(one))

    def heaviest(self) -> dict[str, float]:
        return {name: round(rss_mb, 1) for name, rss_mb in self._rss_mb.items()}

    def await_quiet(self) -> None:
        """Until nobody writes anything and no order waits for anything: its reminder asks again, once a minute.

        What is still owed after so long `examine` names.
        """
        self._await_still()
        ends_at = time.monotonic() + SETTLED_WITHIN_S * CLOCK.patience
        while self._is_owed() and time.monotonic() < ends_at:
            self._say("waiting: nothing is owed any more")
            time.sleep(STILL_FOR_S)
            self._await_still()

    def _await_still(self) -> None:
        """Until all are well, each command was taken, and nobody has written anything for some seconds."""
        seen, since = self._ends(), time.monotonic()

        def is_still() -> bool:
            nonlocal seen, since
            now = self._ends()
            if now != seen or self.sick() or self._untaken(now):
                seen, since = now, time.monotonic()
            return time.monotonic() - since > STILL_FOR_S

        until(is_still, QUIET_WITHIN_S, "the log is at rest", self._say)

    def _is_owed(self) -> bool:
        with open_log(self.settings.kafka, self.topics.prefix, ("events",), ("cart", "order")) as log:
            return is_owed(log.values())

    def _ends(self) -> Mapping[tuple[str, int], int]:
        """Of every partition that the roles write, markers included; empty while Kafka cannot say."""
        admin = AdminClient(QUIETLY | {"bootstrap.servers": self.settings.kafka})
        asked = {place: OffsetSpec.latest() for place in self._places()}  # type: ignore[no-untyped-call]
        try:
            told = admin.list_offsets(asked, request_timeout=ANSWER_S)
            return {
                (place.topic, place.partition): one.result(ANSWER_S).offset for place, one in told.items()
            }
        except KafkaException:
            return {}

    def _untaken(self, ends: Mapping[tuple[str, int], int]) -> bool:
        """Whether a command waits for its worker; true also while Kafka cannot say."""
        commands = {self.topics.commands(aggregate) for aggregate in AGGREGATES}
        group = ConsumerGroupTopicPartitions(
            f"{self.topics.prefix}.commands",
            [TopicPartition(topic, number) for topic, number in ends if topic in commands],
        )
        admin = AdminClient(QUIETLY | {"bootstrap.servers": self.settings.kafka})
        try:
            [told] = admin.list_consumer_group_offsets([group], require_stable=True).values()
            taken = told.result(ANSWER_S).topic_partitions
        except KafkaException:
            return True
        return any(max(0, one.offset) < ends[one.topic, one.partition] for one in taken)

    def _places(self) -> Iterator[TopicPartition]:
        for aggregate in AGGREGATES:
            for name in (self.topics.commands, self.topics.events, self.topics.decisions):
                yield from (
                    TopicPartition(name(aggregate), number) for number in range(self.topics.partitions)
                )

    def restarts(self) -> dict[str, int]:
        """How often the supervisor started each role again."""
        report = read_report(self.settings.run)
        return {role.name: role.restarts for role in report.roles} if report else {}

    def servers(self) -> list[Started]:
        return stack_of(self.settings).running()


def _weight_mb(one: Started) -> float:
    """What it keeps in memory; of a server without what it maps of its files, which the kernel may take back."""
    found = psutil.Process(one.pid).memory_info()
    return float(found.rss - (found.shared if one.name in SERVERS else 0)) / 1e6
