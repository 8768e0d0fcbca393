"""The primary dies under load and its synchronous standby is promoted: what was acknowledged is
there, once and in order, and the same engines serve again within seconds.

HEDDLE_FAILOVER_TRIALS=20 repeats it on a new pair of servers each time (default 1).
"""
import asyncio
import collections
import os
import random
import shutil
import time

import pytest

import checker
from api_client import connect, eventually, run_of, text_of
from clients import Load
from clusters import run
from evidence import Evidence, Tables, read_thread
from harness import ROOT, SHORT_LEASE_MS, Cluster
from network import Network
from postgres_pair import PostgresPair

TRIALS = int(os.environ.get("HEDDLE_FAILOVER_TRIALS", "1"))
SEED = int(os.environ.get("HEDDLE_SEED", str(random.randrange(1 << 30))))
INVARIANTS = ("acknowledged_once", "others_at_most_once", "answered_whole", "in_order",
              "answers_agree", "counters", "history_linear")
CLIENTS = 16
RESUMES_SECONDS = 5.0
TRIES = 3  # a machine that stands still does not do so each time
FOUND_SECONDS = 30.0
TURNS_MIN = 10  # of each client before the primary dies


async def read_back(url, record):
    async with connect(url) as api:
        threads = {name: await read_thread(api, name)
                   for name in {each.thread for each in record.operations}}
    return Evidence(record.operations, threads, {}, Tables([], [], [], [], []), [])


async def fail_over(pair, url, seed):
    load = Load(url, seed, {"wait": CLIENTS})
    record = load.record
    async with load:
        async def flows():
            load.look()
            done = collections.Counter(each.client for each in record.acknowledged())
            return len(done) == CLIENTS and min(done.values()) >= TURNS_MIN
        await eventually(flows, "the load flows")
        before = len(record.acknowledged())
        pair.kill_primary()
        await asyncio.to_thread(pair.promote)
        promoted = time.time()

        async def serves():
            load.look()
            return not load.behind(promoted)
        await eventually(serves, "every client is served again after the promotion", 30.0)
        resumed = time.time() - promoted
    for verdict in checker.check(await read_back(url, record), INVARIANTS):
        assert verdict.passed, verdict
    after, sent = len(record.acknowledged()), len(record.operations)
    print(f"{after} acknowledged ({before} before), {sent - after} without an answer, every client "
          f"is served again {resumed:.2f} s after the promotion")
    return resumed


@pytest.mark.parametrize("trial", range(TRIALS))
def test_failover_loses_nothing_that_was_acknowledged(tmp_path, trial):
    seed = SEED + trial
    print(f"HEDDLE_SEED={seed}")
    agents = tmp_path / "agents"
    shutil.copytree(ROOT / "tests/chaos/agents/tally", agents / "tally")

    for attempt in range(TRIES):
        with PostgresPair() as pair:
            with Cluster(tmp_path / str(attempt), store=pair.url, engines=2, workers=2,
                         agents=agents, lease_ms=SHORT_LEASE_MS) as cluster:
                resumed = run(fail_over(pair, cluster.url, seed), seconds=100)
                cluster.check_clean()
        if resumed < RESUMES_SECONDS:
            break
    assert resumed < RESUMES_SECONDS, "each time"


def test_a_proxy_that_hangs_up_is_no_dead_end(tmp_path):
    """Where a proxy stands before each server, the dead one's accepts connections and closes them."""
    async def body(pair, cluster, link):
        async with connect(cluster.url, total=60.0) as api:
            thread = await api.new_thread()

            async def is_served():
                answer = await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "x"),
                                        want=None)
                return answer.status == 200
            assert await is_served()
            pair.kill_primary()
            link.cut("hang_up")
            await asyncio.to_thread(pair.promote)
            await eventually(is_served, "the promoted server is found", FOUND_SECONDS)

    with Network() as network, PostgresPair() as pair:
        links = [network.link(server.name, server.socket) for server in pair.servers]
        hosts = ",".join(f"127.0.0.1:{link.port}" for link in links)
        with Cluster(tmp_path, store=f"postgres://heddle@{hosts}/heddle", engines=2,
                     workers=1, lease_ms=SHORT_LEASE_MS) as cluster:
            run(body(pair, cluster, links[0]), seconds=60)
            cluster.check_clean()


def test_what_the_standby_does_not_have_yet_is_not_acknowledged(tmp_path):
    """A session that is ended while its commit waits for the standby has committed all the same, but
    only here: reading that back is no proof. The answer waits until the standby has it."""
    async def body(pair, cluster):
        async with connect(cluster.url, total=60.0) as api:
            thread = await api.new_thread()
            await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "first"))
            pair.pause_standby()
            asked = asyncio.create_task(
                api.post(f"/threads/{thread}/runs/wait", run_of("echo", "second")))

            async def cut():
                return pair.primary.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                        "WHERE wait_event = 'SyncRep'") == "t"
            await eventually(cut, "a commit waits for the standby")

            async def reads_back():
                return pair.primary.ask("SELECT 1 FROM pg_stat_activity WHERE "
                                        "wait_event = 'SyncRep' AND query LIKE '%emit_message%'")
            await eventually(reads_back, "what became of it waits for the standby as well")
            assert not asked.done()
            pair.resume_standby()
            assert (await asked).status == 200
            asked = [text_of(one) for one in await api.thread_messages(thread)
                     if one["type"] == "human"]
            assert asked == ["first", "second"]

    with PostgresPair() as pair:
        with Cluster(tmp_path, store=pair.url, engines=2, workers=1,
                     lease_ms=SHORT_LEASE_MS) as cluster:
            run(body(pair, cluster), seconds=60)
            cluster.check_clean()
