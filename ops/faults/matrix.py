"""The fault matrix: every row by name, what it must show, and the function that plays it."""

from collections.abc import Mapping
from types import MappingProxyType

from ops.faults import broker_rows as broker
from ops.faults import log_rows as log
from ops.faults import payment_rows as payment
from ops.faults import role_rows as role
from ops.faults import store_rows as store
from ops.faults import upgrade_rows as upgrade
from ops.faults import worker_rows as worker
from ops.faults.scene import Row

ROWS: Mapping[str, Row] = MappingProxyType(
    {
        row.name: row
        for row in (
            Row("F1", "a worker killed at each step of a transaction: one effect", worker.f1),
            Row("F2", "killed after the commit, asked again: the first outcome", worker.f2),
            Row("F3", "a zombie is fenced, and nothing of it is visible", worker.f3),
            Row("F4", "of two workers with one slot the older is fenced", worker.f4),
            Row("F5", "a delayed end of a transaction tears no batch", worker.f5),
            Row("F6", "a lost answer to a commit is resolved once", worker.f6),
            Row("F7", "a lost answer to a produce is resolved once", worker.f7),
            Row("F8", "the broker killed: nothing acknowledged is lost, back in 15 s", broker.f8),
            Row("F9", "power loss: nothing with the flush profile, and named without it", broker.f9),
            Row("F10", "the broker frozen: what is unknown is decided later, once", broker.f10),
            Row("F11", "the projections killed, and frozen beyond their session: same rows", role.f11),
            Row("F12", "every role killed, one after the other and all at once", role.f12),
            Row("F13", "an agent raises: nothing is skipped", log.f13),
            Row("F14", "what was aborted is never seen", log.f14),
            Row("F15", "the payment agent killed around its call: one charge", payment.f15),
            Row("F16", "a provider that stumbles, and webhooks of all sorts: money moves once", payment.f16),
            Row("F17", "Cassandra down: offsets wait in bounded memory, others go on", store.f17),
            Row("F18", "Cassandra slow, and one table failing: nothing is skipped", store.f18),
            Row("F19", "Redis flushed, killed, old, full: it is filled again by itself", store.f19),
            Row("F20", "duplicates, old and new, change nothing", log.f20),
            Row("F21", "one topic late: the same rows in the end", store.f21),
            Row("F22", "poison is lettered with its reason, and the next command is answered", log.f22),
            Row(
                "F23",
                "a clock that is wrong and jumps: order by version, each reservation ends once",
                worker.f23,
            ),
            Row("F24", "a hot SKU, a slow consumer, a flood: bounded memory, load is shed", broker.f24),
            Row("F25", "no room left: nothing corrupt, and it recovers", broker.f25, optional=True),
            Row("F26", "a view rebuilt under load, killed half-way twice: served all the time", store.f26),
            Row("F27", "two releases side by side, one event with one more field: no error", upgrade.f27),
            Row("F28", "everything killed at once: all green in 60 s, unattended", role.f28),
            Row("F29", "frozen one by one, thawed in another order: it converges", role.f29),
            Row("F30", "a record changed in a copy of the log is named", log.f30),
            Row("F31", "a zombie thaws in another slot's takeover: no version twice", worker.f31),
        )
    }
)
