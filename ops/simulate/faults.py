"""The faults: what a seed does to the site, kind by kind, each a small function; any hundred seeds hold all kinds."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from ops.simulate.broker import Entry
from ops.simulate.clockwork import START, Process
from ops.simulate.network import Mishap
from ops.simulate.site import AGENTS, ROLES, Site
from ops.simulate.stores import Disk
from schemas.language import AGGREGATES
from schemas.meta import SECOND

FIRST, LAST = 5 * SECOND, 300 * SECOND
FAULTS_UNTIL = 320 * SECOND
"""Then all heals."""
FAULTS_LEAST, FAULTS_MOST = 4, 12
MOVED = 8_500_000
"""A worker that is silent for so long has lost its partitions, and still has its transaction."""

WORKER_STEPS = (
    "worker.received", "worker.decided", "worker.begun", "worker.produced", "worker.offsets_sent",
    "worker.committed", "worker.merged",
)  # fmt: skip
AGENT_STEPS = {
    "sagas": ("agent_before_apply", "saga_before_commands", "saga_after_commands", "agent_before_ack"),
    "payments": ("payment_before_call", "payment_after_call", "payment_after_command", "agent_before_ack"),
    "projections": ("agent_before_apply", "agent_after_apply", "agent_before_ack"),
}


@dataclass(frozen=True)
class Fault:
    """`at` and `lasts` are microseconds (the first since the start); `which` and `how` choose among what it may hit."""

    kind: str
    at: int
    lasts: int
    which: int
    how: int

    def inject(self, site: Site, happened: list[str]) -> None:
        if self.delays_writers:
            site.network.hamper(self.lasts)
        what = KINDS[self.kind](site, self)
        happened.append(f"{self.at / SECOND:8.3f} s  {self.kind}: {what}")

    @property
    def delays_writers(self) -> bool:
        return self.kind.split(" ")[0] not in HARMLESS_TO_WRITERS

    @property
    def seconds(self) -> float:
        return self.lasts / SECOND

    def worker(self) -> str:
        return f"commands-{self.which % 2}"

    def agent(self) -> str:
        return AGENTS[self.which % len(AGENTS)]

    def role(self) -> str:
        return ROLES[self.which % len(ROLES)]


def plan_faults(seed: int, random: Random) -> tuple[Fault, ...]:
    """The seed's own kind, so that consecutive seeds go through all of them, and some more."""
    names = sorted(KINDS)
    kinds = [names[seed % len(names)], *random.choices(names, k=random.randint(FAULTS_LEAST, FAULTS_MOST))]
    return tuple(sorted((_fault(kind, random) for kind in kinds), key=lambda fault: fault.at))


def _fault(kind: str, random: Random) -> Fault:
    # Most waits that matter end between 4 and 7 s: a session's, a transaction's.
    lasts = random.choice(
        (random.uniform(0.05, 2), random.uniform(4, 7), random.uniform(4, 7), random.uniform(1, 40))
    )
    return Fault(
        kind,
        random.randrange(FIRST, LAST),
        int(lasts * SECOND),
        random.randrange(1_000),
        random.randrange(1_000),
    )


# Command workers.


def _kill_worker(site: Site, fault: Fault) -> str:
    site.kill(fault.worker())
    return fault.worker()


def _kill_worker_at_step(site: Site, fault: Fault) -> str:
    step = WORKER_STEPS[fault.how % len(WORKER_STEPS)]
    site.arm(fault.worker(), step, "kill")
    return f"{fault.worker()} at {step}"


def _freeze_worker(site: Site, fault: Fault) -> str:
    site.freeze(site.roles[fault.worker()].process, fault.lasts)
    return f"{fault.worker()} for {fault.seconds:.2f} s"


def _freeze_worker_at_step(site: Site, fault: Fault) -> str:
    step = WORKER_STEPS[fault.how % len(WORKER_STEPS)]
    site.arm(fault.worker(), step, fault.lasts)
    return f"{fault.worker()} at {step} for {fault.seconds:.2f} s"


def _start_worker_twice(site: Site, fault: Fault) -> str:
    site.launch(fault.worker())
    return fault.worker()


def _replace_frozen_worker(site: Site, fault: Fault) -> str:
    """The supervisor takes it for dead and starts another; later it thaws."""
    step = WORKER_STEPS[fault.how % len(WORKER_STEPS)]
    site.arm(fault.worker(), step, fault.lasts)
    site.clock.after(fault.lasts * 0.6 + SECOND, None, site.launch, fault.worker())
    return f"{fault.worker()} at {step} for {fault.seconds:.2f} s"


def _move_in_transaction(site: Site, fault: Fault) -> str:
    """A worker freezes between its offsets and its records until its partitions are another slot's; then it commits.

    The coordinator looks for open transactions as seldom as by default, and the markers come first where the offsets
    stand. Afterwards it freezes again, so that the partitions stay where they moved.
    """
    worker = fault.worker()

    def freeze(process: Process) -> None:
        site.broker.be_patient()
        site.broker.late_markers[f"{site.topics.prefix}.{worker}"] += 1
        site.arm(worker, "worker.committed", fault.lasts + 8 * SECOND)
        site.freeze(process, MOVED + fault.lasts % SECOND)

    site.network.arm(worker, "flush", "slow")
    site.arm(worker, "worker.offsets_sent", freeze)
    return worker


def _keep_slot_down(site: Site, fault: Fault) -> str:
    """Its partitions go to the other slot, and come back."""
    role = site.roles[fault.worker()]
    role.restarts = False
    site.kill(fault.worker())
    site.clock.after(fault.lasts + 7 * SECOND, None, _bring_back, site, fault.worker())
    return fault.worker()


def _bring_back(site: Site, name: str) -> None:
    role = site.roles[name]
    if not role.restarts and not role.process.alive:
        role.restarts = True
        site.launch(name)


def _lose_disk(site: Site, fault: Fault) -> str:
    site.kill(fault.worker())
    slot = fault.which % 2
    site.disks[slot] = [(Disk(), site.roles[fault.worker()].process)]
    return fault.worker()


def _jump_clock(site: Site, fault: Fault) -> str:
    """Forward or back, in the middle of its work, until the process ends."""
    error = (1 if fault.how % 2 else -1) * fault.lasts

    def jump(process: Process) -> None:
        # What was due meanwhile is due at once; and a partition's time stands still until the others have come up.
        site.network.hamper(START + FAULTS_UNTIL - site.clock.now + fault.lasts)
        process.clock_error = error

    site.arm(fault.worker(), "worker.received", *[1] * (fault.how % 4), jump)
    return f"{fault.worker()} by {error / SECOND:.2f} s"


# The network and the broker.


def _mishap(api: str, mishap: Mishap) -> Callable[[Site, Fault], str]:
    def arm(site: Site, fault: Fault) -> str:
        for _ in range(1 + fault.how % 3):
            site.network.arm(fault.worker(), api, mishap)
        return f"{fault.worker()}, {1 + fault.how % 3} times"

    return arm


def _delay_commit(site: Site, fault: Fault) -> str:
    """A commit's first copy arrives late; half of the time in a transaction that is half written, and then dies."""
    worker, half_written = fault.worker(), fault.how % 2
    site.network.arm(worker, "end", "again later")
    if half_written:
        # The transaction whose commit is delayed passes each step first.
        def freeze(process: Process) -> None:
            site.network.let_strays_arrive(worker)
            site.freeze(process, 3 * SECOND)

        site.arm(worker, "worker.begun", 1, lambda _: site.network.arm(worker, "first record", "slow"))
        site.arm(worker, "worker.produced", 1, freeze)
        site.arm(worker, "worker.offsets_sent", 1, "kill")
    return f"{worker}{', then killed in the next transaction' if half_written else ''}"


def _lose_send(site: Site, fault: Fault) -> str:
    """What an agent or a caller sends is written in part, or as a whole, and nobody hears of it."""
    role = ("sagas", "payments", "callers")[fault.which % 3]
    mishaps: tuple[Mishap, ...] = ("answer lost", "request lost", "slow")
    for n in range(1 + fault.how % 4):
        site.network.arm(role, "send", mishaps[(fault.how + n) % 3])
    return role


def _slow_network(site: Site, fault: Fault) -> str:
    site.network.weather.slowness = 5.0 + fault.how % 100
    site.clock.after(fault.lasts, None, _calm, site)
    return f"{site.network.weather.slowness:.0f} times, for {fault.seconds:.2f} s"


def _calm(site: Site) -> None:
    site.network.weather.slowness = 1.0


def _broker_down(site: Site, fault: Fault) -> str:
    site.network.weather.down_until = site.clock.now + fault.lasts
    for log in site.broker.logs.values():
        site.clock.after(fault.lasts + 1, None, log.tell, "read_committed", "read_uncommitted")
    return f"for {fault.seconds:.2f} s"


def _hold_topic(site: Site, fault: Fault) -> str:
    """One topic is read later than the others: order holds inside a stream only."""
    kinds = ("events", "decisions", "commands")
    topic = f"{site.topics.prefix}.{kinds[fault.how % 3]}.{sorted(AGGREGATES)[fault.which % len(AGGREGATES)]}"
    for number in range(site.topics.partitions):
        log = site.broker.logs[topic, number]
        log.held_until = site.clock.now + fault.lasts
        site.clock.after(fault.lasts + 1, None, log.tell, "read_committed", "read_uncommitted")
    return f"{topic} for {fault.seconds:.2f} s"


# Records.


def _send_again(site: Site, fault: Fault) -> str:
    """A slice of what was sent is sent again: the latest, or what is long past."""
    topic = site.topics.commands(sorted(AGGREGATES)[fault.which % len(AGGREGATES)])
    place = (topic, fault.how % site.topics.partitions)
    entries = site.broker.logs[place].entries
    start = max(0, len(entries) - 20) if fault.how % 3 else 0
    poison = {offset for where, offset in site.poison if where == place}
    some = [entries[n] for n in range(start, min(start + 20, len(entries))) if n not in poison]
    site.broker.append(place, [_as_sent(entry) for entry in some])
    return f"{len(some)} of {topic}/{place[1]} from {start} on"


def _as_sent(entry: Entry) -> Any:
    return entry.key, entry.value, entry.headers


def _send_late(site: Site, fault: Fault) -> str:
    """What callers send from now on arrives when its time is over."""
    count = 4 + fault.how % 6
    for _ in range(count):
        site.network.arm("callers", "send", "far too late")
    return f"{count} times"


def _poison(site: Site, fault: Fault) -> str:
    """What no process of ours writes, among commands or events."""
    values = (b"\x00" * 40, b"\xc3\x01garbage!", b"", b"\xff" * 3_000)
    kind = ("commands", "events")[fault.how % 2]
    topic = f"{site.topics.prefix}.{kind}.{sorted(AGGREGATES)[fault.which % len(AGGREGATES)]}"
    place = (topic, fault.which % site.topics.partitions)
    offset = site.broker.append(place, [(b"k", values[fault.how % len(values)], ())]) - 1
    site.poison.append((place, offset))
    return f"{topic}/{place[1]}@{offset}"


def _rewind_agent(site: Site, fault: Fault) -> str:
    """Its group's offsets go back: what it has read is read again, from the start."""
    name = ("sagas", "payments")[fault.which % 2]
    group = site.broker.groups[f"{site.topics.prefix}.{name}"]
    site.kill(name)
    for place in list(group.offsets):
        group.offsets[place] = (0 if fault.how % 2 else max(0, group.offsets[place][0] - 30), "")
    return name


# Agents and stores.


def _kill_agent(site: Site, fault: Fault) -> str:
    site.kill(fault.agent())
    return fault.agent()


def _agent_step(site: Site, fault: Fault, effect: str | int) -> str:
    steps = AGENT_STEPS[fault.agent()]
    step = steps[fault.how % len(steps)]
    site.arm(fault.agent(), step, effect)
    return f"{fault.agent()} at {step}"


def _kill_agent_at_step(site: Site, fault: Fault) -> str:
    return _agent_step(site, fault, "kill")


def _agent_raises(site: Site, fault: Fault) -> str:
    return _agent_step(site, fault, "raise")


def _freeze_agent_at_step(site: Site, fault: Fault) -> str:
    return f"{_agent_step(site, fault, fault.lasts)} for {fault.seconds:.2f} s"


def _double_agent(site: Site, fault: Fault) -> str:
    """It freezes, another takes over, and then there are two for a while."""
    name = fault.agent()
    old = site.roles[name].process
    old.freeze(fault.lasts)
    site.launch(name)
    site.clock.after(fault.lasts + 15 * SECOND, None, site.retire, old)
    return f"{name} for {fault.seconds:.2f} s"


def _store_down(site: Site, fault: Fault) -> str:
    name = sorted(site.shelves)[fault.which % 2]
    site.shelves[name].is_down = True
    site.clock.after(fault.lasts, None, _store_up, site, name)
    return f"{name} for {fault.seconds:.2f} s"


def _store_up(site: Site, name: str) -> None:
    site.shelves[name].is_down = False


def _delay_writes(site: Site, fault: Fault) -> str:
    """Who asked gives up and asks again; the first request arrives later, over what is newer by then."""
    name = sorted(site.shelves)[fault.which % 2]
    site.shelves[name].late += [fault.lasts] * (1 + fault.how % 4)
    return f"{name}, {1 + fault.how % 4} times, for {fault.seconds:.2f} s"


def _lose_store(site: Site, fault: Fault) -> str:
    name = sorted(site.shelves)[fault.which % 2]
    site.shelves[name].lose(site.clock.now)
    return name


def _restore_store(site: Site, fault: Fault) -> str:
    """It is as it was some time before."""
    name = sorted(site.shelves)[fault.which % 2]
    shelf = site.shelves[name]
    old = shelf.copy()
    site.clock.after(fault.lasts, None, lambda: shelf.restore(old, site.clock.now))
    return f"{name} to {fault.seconds:.2f} s before"


def _kill_all(site: Site, _fault: Fault) -> str:
    for name in ROLES:
        site.kill(name)
    return "everything"


def _mood(mood: Any) -> Callable[[Site, Fault], str]:
    def change(site: Site, fault: Fault) -> str:
        site.provider.mood = mood
        site.clock.after(fault.lasts + 10 * SECOND, None, setattr, site.provider, "mood", "well")
        return f"for {fault.seconds + 10:.2f} s"

    return change


def _silence_provider(site: Site, _fault: Fault) -> str:
    """No answer until all heals: what waits for money ends by its own deadline, or not at all."""
    site.provider.is_silent = True
    return "until all heals"


HARMLESS_TO_WRITERS = ("agent", "agent's", "provider", "store", "store's", "send", "sent", "poison", "topic")
"""How the kinds begin that delay no deadline: these are the writers' affair."""

KINDS: dict[str, Callable[[Site, Fault], str]] = {
    "worker killed": _kill_worker,
    "worker killed at a step": _kill_worker_at_step,
    "worker frozen": _freeze_worker,
    "worker frozen at a step": _freeze_worker_at_step,
    "worker started twice": _start_worker_twice,
    "worker replaced while frozen": _replace_frozen_worker,
    "worker frozen in a transaction, its partitions moved": _move_in_transaction,
    "slot down": _keep_slot_down,
    "disk lost": _lose_disk,
    "clock wrong": _jump_clock,
    "answer to commit lost": _mishap("end", "answer lost"),
    "commit lost": _mishap("end", "request lost"),
    "commit delayed": _delay_commit,
    "commit slow": _mishap("end", "slow"),
    "offsets lost": _mishap("offsets", "request lost"),
    "produce slow": _mishap("produce", "slow"),
    "send lost": _lose_send,
    "send late": _send_late,
    "network slow": _slow_network,
    "broker down": _broker_down,
    "topic held": _hold_topic,
    "sent again": _send_again,
    "poison": _poison,
    "agent's offsets lost": _rewind_agent,
    "agent killed": _kill_agent,
    "agent killed at a step": _kill_agent_at_step,
    "agent raises": _agent_raises,
    "agent frozen at a step": _freeze_agent_at_step,
    "agent twice": _double_agent,
    "store down": _store_down,
    "store's writes delayed": _delay_writes,
    "store lost": _lose_store,
    "store an hour old": _restore_store,
    "everything killed": _kill_all,
    "provider times out after success": _mood("timeout after success"),
    "provider fails": _mood("server error"),
    "provider slow": _mood("slow"),
    "provider refuses": _mood("refusing"),
    "provider silent": _silence_provider,
}
