"""What nginx does with a request that no engine takes. The engines are of tests/support/fake_engine.py
but where it is said."""
import asyncio
import contextlib
import json
import select
import sqlite3
import subprocess

import pytest

from api_client import connect, eventually, run_of
from clusters import run
from fake_engine import FakeCluster
from harness import SHORT_LEASE_MS, Cluster
from local.postgres import programs
from local.processes import wait_until
from silent_reader import SilentReader
from stalls import lost
from wire_client import REFUSED, REQUEST

RUN = {"assistant_id": "echo", "input": {}}
AT_ONCE = 8
SECONDS = 30.0
LOCK = "BEGIN; LOCK TABLE heddle.engines IN EXCLUSIVE MODE; SELECT pg_sleep(600)"
UNLOCK = ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
          "AND datname = current_database()")
RUN_ID, HOP = 6, 9
ASKED_MAX = 20


def ask(cluster):
    return SilentReader(cluster.url, "/runs/wait", RUN)


def refuse(cluster, code):
    """The next engine that is asked refuses. Returns it, and what it was asked."""
    engine, asked = cluster.take(REQUEST)
    engine.send(REFUSED, asked.id, {1: code})
    return engine, asked


def error(client):
    head, body = client.read_all()
    assert " 503 " in head.splitlines()[0] and "retry-after: 1" in head.lower(), head
    return json.loads(body)["code"]


def test_engines_that_cannot_take_it_now_are_asked_again(tmp_path):
    """As when all lost their leases because the database stood still: the client only waits."""
    with FakeCluster(tmp_path, engines=2) as cluster:
        client = ask(cluster)
        first, asked = refuse(cluster, "unavailable")
        second, _ = refuse(cluster, "unavailable")
        assert second is not first
        engine, again = cluster.take(REQUEST)
        assert again.fields[HOP] == 1 and again.fields[RUN_ID] == asked.fields[RUN_ID]
        engine.answer(again.id, {"hello": 1})
        assert json.loads(client.read_all()[1]) == {"hello": 1}


@pytest.mark.parametrize("of_one", ["unavailable", "overloaded"])
def test_it_ends_if_none_can_take_it(tmp_path, of_one):
    patience = "heddle_connect_timeout 2s;"
    with FakeCluster(tmp_path, engines=2, location=patience) as cluster:
        client = ask(cluster)
        asked = 0
        while not select.select([client.socket], [], [], 0.01)[0]:  # nothing is answered yet
            for engine, code in zip(cluster.engines, [of_one, "unavailable"]):
                frame = engine.find(REQUEST)
                if frame is not None:
                    engine.send(REFUSED, frame.id, {1: code})
                    asked += 1
        assert error(client) == of_one
        assert 2 < asked < ASKED_MAX


def test_engines_with_too_much_to_do_are_asked_once(tmp_path):
    with FakeCluster(tmp_path, engines=2) as cluster:
        client = ask(cluster)
        refuse(cluster, "overloaded")
        refuse(cluster, "overloaded")
        assert error(client) == "overloaded"
        assert sum(len(engine.of(REQUEST)) for engine in cluster.engines) == 2


async def refusals(cluster):
    status = await asyncio.to_thread(cluster.edges[0].status)
    return sum(engine["refused"] for pool in status["pools"] for engine in pool["engines"])


@contextlib.contextmanager
def heartbeats_wait(cluster):
    """No engine can say that it lives while the block lasts."""
    if cluster.store_url.startswith("sqlite:"):
        with contextlib.closing(sqlite3.connect(cluster.store_url.removeprefix("sqlite:"),
                                                timeout=SECONDS, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            yield
        return
    psql = [programs() / "psql", "-XAtq", "-d", cluster.store_url, "-c"]
    with subprocess.Popen([*psql, LOCK], stderr=subprocess.DEVNULL):
        try:
            yield
        finally:
            subprocess.run([*psql, UNLOCK], check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_leases_that_were_lost_cost_nobody_a_request(tmp_path, store):
    """Of real engines, because their database stood still."""
    async def body(cluster):
        async with connect(cluster.url) as api:
            thread = await api.new_thread()
            await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "before"))
            with heartbeats_wait(cluster):
                await asyncio.to_thread(
                    wait_until, lambda: all(lost(engine) for engine in cluster.engines),
                    "all engines have lost their leases", SECONDS)
                asked = asyncio.gather(
                    api.post(f"/threads/{thread}/runs/wait", run_of("echo", "after")),
                    *(api.post("/runs/wait", run_of("echo", "after")) for _ in range(AT_ONCE)))

                async def are_refused():
                    return await refusals(cluster) > AT_ONCE
                await eventually(are_refused, "all of them are refused")
            answers = await asked
            assert all("__error__" not in answer.json for answer in answers)

    with Cluster(tmp_path, store=store, lease_ms=SHORT_LEASE_MS,
                 nginx_server="heddle_connect_timeout 15s;") as cluster:
        run(body(cluster))
        cluster.check_clean()
