"""F17 to F19, F21, F26: the stores of the read side are down, slow, partly broken, emptied, old, full, and rebuilt."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis
from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

from ops.faults.callers import OWN_WRITE
from ops.faults.floor import Floor, Projecting, caught_up
from ops.faults.history import SERVER_ERROR
from ops.faults.kafka_proxy import KafkaProxy
from ops.faults.log_rows import asks_for_payment, send_order
from ops.faults.scene import Scene
from ops.faults.tcp_proxy import TcpProxy
from ops.faults.verdict import CLOCK, RowIsRed, demand, until
from ops.rebuild import VIEWS
from ops.settings import REPOSITORY
from projections import ledger
from projections.cassandra_store import Insert
from projections.registry import PROJECTIONS

GROWTH_MAX_MB = 50.0
"""What a role may take more while a store is away, however much is traded meanwhile."""
CATCHES_UP_S = 25.0
DELAY_S = 0.02
ANSWER_S = 10.0
SMALL_REDIS = "1mb"
KILLS_MAX = 5


def f17(scene: Scene) -> None:
    house = scene.house
    with scene.trading():
        scene.trade_on()
        scene.inject("SIGKILL to Cassandra while callers trade")
        house.kill("cassandra")
        scene.trade_on(150)
        scene.await_green()
        scene.trade_on()
    scene.judge()
    with scene.floor() as floor, TcpProxy(floor.servers.cassandra) as cassandra:
        floor.shop.start()
        scene.inject("Cassandra down at the start; cut off in mid-run; slow")
        cassandra_down_at_the_start(floor, cassandra)
        projecting = Projecting(floor.roles)
        cassandra_cut_off(floor, cassandra, projecting)
        cassandra_slow(floor, cassandra, projecting)
        scene.checked("C11")


def cassandra_down_at_the_start(floor: Floor, cassandra: TcpProxy) -> None:
    cassandra.cut()
    stood = floor.cassandra_positions()
    projecting = floor.start_projections(DAYBOOK_CASSANDRA=cassandra.address)
    skus = floor.skus("CLOCK", 50)
    floor.deliver(skus)
    floor.await_sellable(skus[-1], 1)
    demand(projecting.lives, "the projections ended")
    demand(floor.cassandra_positions() == stood, "a position moved without its rows")
    cassandra.restore()
    caught_up(floor)
    demand(projecting.lives, "the projections ended")


def cassandra_cut_off(floor: Floor, cassandra: TcpProxy, projecting: Projecting) -> None:
    skus = floor.skus("LANTERN", 250)
    floor.deliver(skus)
    caught_up(floor)
    cassandra.cut()
    stood, rss_mb = floor.cassandra_positions(), projecting.rss_mb
    for _ in range(20):
        floor.deliver(skus)
    floor.await_sellable(skus[-1], 21)
    until(lambda: "degraded" in projecting.healths, 20, "the projections say that they are degraded")
    demand(projecting.lives, "the projections ended")
    demand(floor.cassandra_positions() == stood, "a position moved without its rows")
    committed = {
        place: offset
        for one in PROJECTIONS
        if one.store == "cassandra"
        for place, offset in floor.committed(f"views.{one.name}", one.topics(floor.shop.topics)).items()
    }
    demand(
        all(committed[place] <= offset for place, offset in stood.items()), "an offset was committed too far"
    )
    demand(projecting.rss_mb - rss_mb < GROWTH_MAX_MB, f"they grew by {projecting.rss_mb - rss_mb:.0f} MB")
    cassandra.restore()
    caught_up(floor)
    until(lambda: projecting.healths == {"ok"}, 10, "the projections are well")


def cassandra_slow(floor: Floor, cassandra: TcpProxy, projecting: Projecting) -> None:
    skus = floor.skus("TEAPOT", 50)
    floor.deliver(skus)
    caught_up(floor)
    cassandra.stall(0.05)
    for _ in range(5):
        floor.deliver(skus)
    floor.await_sellable(skus[-1], 6)
    caught_up(floor)
    cassandra.stall(0)
    demand(projecting.lives, "the projections ended")


def f18(scene: Scene) -> None:
    with scene.floor() as floor, TcpProxy(floor.servers.cassandra) as cassandra:
        floor.shop.start()
        projecting = floor.start_projections(DAYBOOK_CASSANDRA=cassandra.address)
        scene.inject(f"every answer of Cassandra {DELAY_S * 1000:.0f} ms late")
        cassandra.stall(DELAY_S)
        skus = floor.skus("SHELF", 100)
        for _ in range(3):
            floor.deliver(skus)
        caught_up(floor)
        cassandra.stall(0)
        scene.inject("every write to the ledger's table is lost with its connection")
        one_table_fails(floor, cassandra, projecting, skus)
        scene.checked("C11")


def one_table_fails(floor: Floor, cassandra: TcpProxy, projecting: Projecting, skus: list[str]) -> None:
    stood = floor.cassandra_positions()
    cassandra.lose(prepared_id(floor, ledger.MOVEMENT))
    for _ in range(5):
        floor.deliver(skus)
    floor.await_sellable(skus[-1], 8)
    until(lambda: cassandra.losses > 2, 30, "writes to the table fail, again and again")
    demand(projecting.lives, "the projections ended")
    demand(floor.cassandra_positions() == stood, "a position moved without its rows")
    cassandra.restore()
    caught_up(floor)


def prepared_id(floor: Floor, insert: Insert) -> bytes:
    """Under which every client's writes by this insert go over the wire: it follows from keyspace and text."""
    cluster = floor.side.cassandra.cluster()
    try:
        session = cluster.connect(floor.side.cassandra.keyspace)
        (found,) = session.execute("SELECT live FROM live_generations WHERE title = %s", (ledger.VIEW.title,))
        cql = insert.cql.format(g=ledger.VIEW.tables(found["live"]))
        return bytes(session.prepare(cql).query_id)
    finally:
        cluster.shutdown()


def f19(scene: Scene) -> None:
    settings = scene.house.settings
    host, _, port = settings.redis.rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client, scene.trading() as history:
        scene.trade_on()
        seen = len(history.backwards)
        client.save()
        dump = settings.stack / "redis" / "data" / "dump.rdb"
        old = dump.with_suffix(".old")
        shutil.copyfile(dump, old)
        scene.trade_on(150)
        scene.inject("FLUSHALL")
        client.flushall()
        scene.trade_on()
        scene.inject("SIGKILL to Redis, which comes back with an older dump")
        shutil.copyfile(old, dump)
        scene.house.kill("redis")
        scene.await_green()
        scene.trade_on()
        out_of_memory(scene, client)
    scene.judge(skip=["C12"])
    # What was thrown away is not there until it is posted again: a reader without a receipt may see less for a while.
    del history.backwards[seen:]


def out_of_memory(scene: Scene, client: redis.Redis) -> None:
    scene.inject(f"maxmemory {SMALL_REDIS}: writes are refused")
    client.config_set("maxmemory", SMALL_REDIS)
    scene.await_within(
        "the projections wait and say so", lambda: "projections" in scene.house.sick(), CATCHES_UP_S
    )
    client.config_set("maxmemory", "256mb")
    scene.heal()
    scene.await_green()
    scene.trade_on()


def f21(scene: Scene) -> None:
    with scene.floor() as floor, KafkaProxy(floor.shop.kafka) as proxy:
        shop, topics = floor.shop, floor.shop.topics
        shop.start()
        shop.answer(shop.receive_stock(100))
        floor.start_projections(DAYBOOK_KAFKA=proxy.address)
        floor.start("sagas", DAYBOOK_KAFKA=proxy.address)
        for topic in (topics.events("inventory"), topics.decisions("inventory"), topics.events("order")):
            scene.inject(f"fetches of {topic.removeprefix(topics.prefix + '.')} are held back")
            topic_held_back(floor, proxy, topic)
        floor.await_quiet(60)
        caught_up(floor)
        scene.checked("C11")


def topic_held_back(floor: Floor, proxy: KafkaProxy, topic: str) -> None:
    """What other topics say meanwhile is heard first."""
    with proxy.withholding(id_of(floor.shop.kafka, topic)):
        floor.deliver(floor.skus("VASE", 20))
        order = send_order(floor.shop, units=1)
        until(lambda: proxy.withheld > 20, 20, "fetches that do not ask for the topic")
    until(lambda: asks_for_payment(floor.shop, order), 40, "the order asks for its payment")


def id_of(kafka: str, topic: str) -> bytes:
    admin = AdminClient({"bootstrap.servers": kafka})  # its futures end with it
    found = admin.describe_topics(TopicCollection([topic]))[topic].result(ANSWER_S).topic_id
    high, low = found.get_most_significant_bits(), found.get_least_significant_bits()
    return struct.pack(">qq", high, low)


def f26(scene: Scene) -> None:
    views = [names[0] for names in VIEWS.values()]
    with scene.trading() as history:
        scene.trade_on(200)
        began = len(history.attempts)
        for view in views:
            took_s = rebuilt(scene, view)
            for _ in range(2):
                scene.inject(f"a rebuild of {view} is killed half-way")
                killed_half_way(scene, view, took_s)
            rebuilt(scene, view)
            scene.all_is_well()
            scene.trade_on(30)
    reads = [one for one in history.attempts[began:] if one.is_read and OWN_WRITE not in one.route]
    failed = {f"{one.route}: {one.status}" for one in reads if not 0 < one.status < SERVER_ERROR}
    demand(not failed, f"reads failed while views were rebuilt: {failed}")
    scene.judge()
    scene.checked("C13")


@contextmanager
def rebuild(scene: Scene, view: str) -> Iterator[subprocess.Popen[bytes]]:
    """`./daybook rebuild VIEW` beside us; it does not outlive the row, however that ends."""
    environment = {**os.environ, **scene.house.settings.environment("rebuild")}
    with (scene.stage.folder / "rebuild.log").open("ab") as log:
        argv = [sys.executable, "-m", "ops", "rebuild", view]
        run = subprocess.Popen(argv, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)
    try:
        yield run
    finally:
        run.kill()
        run.wait(20)


def rebuilt(scene: Scene, view: str) -> float:
    """From its start to its end; seconds."""
    began = time.monotonic()
    with rebuild(scene, view) as run:
        demand(run.wait(120 * CLOCK.patience) == 0, f"the rebuild of {view} ended with {run.returncode}")
    return time.monotonic() - began


def killed_half_way(scene: Scene, view: str, took_s: float) -> None:
    """In the later half of the time that the last one took; what ends before that is tried again."""
    for _ in range(KILLS_MAX):
        with rebuild(scene, view) as run:
            with suppress(subprocess.TimeoutExpired):
                run.wait(took_s * scene.random.uniform(0.5, 0.9))
            run.kill()
            if run.wait(20) == -signal.SIGKILL:
                return
    raise RowIsRed(f"each of {KILLS_MAX} rebuilds of {view} ended before it was killed")
