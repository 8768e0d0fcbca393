"""What is kept, how long, and what a repeat gets: Idempotency-Key, ttl, pruned checkpoints, attempts."""

import asyncio
import datetime
import json
import os
import re
import sqlite3
import subprocess
import time
import uuid

import pytest

from api_client import FINAL, connect, eventually, is_error, run_of
from clusters import run, slow_cluster
from harness import SHORT_LEASE_MS
from local.postgres import programs
from stalls import lost
from wire_client import WireClient

KEY_SECONDS = 6
TTL_MINUTES = 0.1  # far more than a run takes
SLOW_SECONDS = 2.0
OPTIONS = ("--idempotency-key-seconds", KEY_SECONDS, "--stateless-result-seconds", 5,
           "--checkpoints-kept", 4, "--sweep-seconds", 1, "--attempts-max", 2)
VALUES = ["values", "updates"]


@pytest.fixture(params=["sqlite", "postgres"])
def cluster(request, tmp_path):
    with slow_cluster(tmp_path, store=request.param, latency=2.0, engines=2, workers=2, nginxes=2,
                      lease_ms=SHORT_LEASE_MS, engine_options=OPTIONS) as made:
        yield made
        made.check_clean()


@pytest.fixture(params=["postgres"])
def keeper(request, tmp_path):
    """Keys are kept for a day, results of runs without a thread for a minute, as by default."""
    with slow_cluster(tmp_path, store=request.param, latency=2.0, engines=2, workers=2, nginxes=2,
                      lease_ms=SHORT_LEASE_MS, engine_options=("--sweep-seconds", 1)) as made:
        yield made
        made.check_clean()


def psql(cluster, statement):
    answer = subprocess.run([programs() / "psql", "-XAtq", "-d", cluster.store_url, "-c", statement],
                            capture_output=True, text=True, check=True, timeout=120)
    return answer.stdout.strip()


def number_of(cluster, what, table):
    """One number about a table, read past the engines."""
    if cluster.store_url.startswith("sqlite:"):
        with sqlite3.connect(cluster.store_url.removeprefix("sqlite:")) as connection:
            return connection.execute(f"SELECT {what} FROM {table}").fetchone()[0]
    return int(psql(cluster, f"SELECT {what} FROM heddle.{table}"))


def count_rows(cluster, table):
    return number_of(cluster, "count(*)", table)


def restart_all(cluster):
    """Nothing of any run is left in memory."""
    for engine in cluster.engines:
        engine.kill9()
    for engine in cluster.engines:
        engine.start()
    cluster.wait_connected()


async def post_again(api, path, body, key):
    """The same request, until the engines are there again."""
    async def answered():
        answer = await api.post(path, body, headers={"idempotency-key": key}, want=None)
        return answer if answer.status < 500 else None
    return await eventually(answered, "engines that answer", 30)


# ---- Idempotency-Key


@pytest.mark.parametrize("completion", ["delete", "keep"])
def test_a_key_without_a_thread_gives_the_same_bytes_after_every_engine_died(keeper, completion):
    async def body():
        async with connect(keeper.urls[0]) as here, connect(keeper.urls[1]) as there:
            sent = run_of("echo", "once", on_completion=completion)
            first = await here.post("/runs/wait", sent, headers={"idempotency-key": "a-b"})
            restart_all(keeper)
            again = await post_again(there, "/runs/wait", sent, "a-b")
            assert again.status == 200 and again.body == first.body
            assert again.headers["content-location"] == first.headers["content-location"]
            other = await post_again(here, "/runs/wait", run_of("echo", "twice"), "a-b")
            is_error(other, "idempotency_mismatch")
            assert other.status == 422
            count = (await here.post("/threads/count", {})).json
            assert count == (1 if completion == "keep" else 0)
            assert count_rows(keeper, "runs") == 1
    run(body(), seconds=90)


def test_repeats_through_two_edges_join_one_run_and_its_stream_from_the_start(keeper):
    async def body():
        async with connect(keeper.urls[0]) as here, connect(keeper.urls[1]) as there:
            sent = run_of("steps", "go", stream_mode=VALUES)
            key = {"idempotency-key": str(uuid.uuid4())}
            streams = [asyncio.create_task(api.stream("POST", "/runs/stream", sent, headers=key))
                       for api in (here, there, here)]
            async def running():
                return sum(engine.metrics()["heddle_scheduler_runs_running"]
                           for engine in keeper.engines) == 1
            await eventually(running, "it runs")
            late = asyncio.create_task(there.stream("POST", "/runs/stream", sent, headers=key))
            waited = there.post("/runs/wait", sent, headers=key)
            received = [[(event.id, event.name, event.data) for event in events]
                        for events in await asyncio.gather(*streams, late)]
            assert received[0][0][1] == "metadata" and len(received[0]) > 10
            assert all(each == received[0] for each in received)
            assert (await waited).json == received[0][-1][2]
            after = await there.stream("POST", "/runs/stream", sent, headers=key)
            assert [(event.id, event.name, event.data) for event in after] == received[0]
            assert count_rows(keeper, "runs") == 1
    run(body(), seconds=90)


def test_a_key_is_free_again_and_its_rows_go(cluster):
    async def body():
        async with connect(cluster.url) as api:
            thread = await api.new_thread()
            paths = ["/runs/wait", f"/threads/{thread}/runs/wait"]
            key = {"idempotency-key": "k"}
            first = [await api.post(path, run_of("echo", "x"), headers=key) for path in paths]
            repeated = [await api.post(path, run_of("echo", "x"), headers=key) for path in paths]
            assert [each.body for each in repeated] == [each.body for each in first]
            assert len((await api.get(f"/threads/{thread}/runs")).json) == 1

            async def forgotten():
                return count_rows(cluster, "idempotency_keys") == 0
            await eventually(forgotten, "the keys' rows go", KEY_SECONDS + 15)
            for path, text in zip(paths, ("other", "body")):
                answer = await api.post(path, run_of("echo", text), headers=key)
                assert answer.status == 200, "the key is free, for another body too"
            assert len((await api.get(f"/threads/{thread}/runs")).json) == 2

            async def gone():
                return count_rows(cluster, "threads") == 1
            await eventually(gone, "the threads of the keyed runs go", KEY_SECONDS + 15)
            assert len(await api.thread_messages(thread)) == 4
    run(body(), seconds=90)


@pytest.mark.parametrize("keeper", ["sqlite", "postgres"], indirect=True)
def test_a_run_without_a_thread_is_answered_although_its_engine_died_when_it_ended(keeper):
    """The edge's own repeat, of a run that was accepted and has ended on disk."""
    first, second = keeper.engines
    run_id = str(uuid.uuid4())
    sent = json.dumps(run_of("echo", "last words")).encode()
    with WireClient(first.endpoint) as edge:
        status, answer = edge.request("POST", "/runs/wait", sent, run_id=run_id)
    assert status == 200
    first.kill9()
    with WireClient(second.endpoint, seconds=20) as edge:
        repeated = edge.request("POST", "/runs/wait", sent, run_id=run_id, hop=1, accepted=True)
    assert repeated == (200, answer)
    assert count_rows(keeper, "runs") == 1
    first.start()


# ---- attempts


async def owner_of_attempt(cluster, api, thread, run_id, attempt):
    """The engine that executes a run for that time or a later one; None if the run is over."""
    async def found():
        for engine in cluster.engines:
            if engine.metrics()["heddle_scheduler_runs_running"] > 0 and \
                    number_of(cluster, "max(attempt)", "runs") >= attempt:
                return (engine,)
        answer = await api.get(f"/threads/{thread}/runs/{run_id}", want=None)
        return (None,) if answer.status == 200 and answer.json["status"] in FINAL else None
    return (await eventually(found, "an engine has the run, or it is over"))[0]


def test_a_run_whose_engines_die_ends_as_error_with_the_reason(cluster):
    async def body():
        async with connect(cluster.url) as api:
            thread = await api.new_thread()
            made = (await api.post(f"/threads/{thread}/runs", run_of("long", "deadly"))).json
            kills = 0
            while victim := await owner_of_attempt(cluster, api, thread, made["run_id"], kills + 1):
                victim.kill9()
                victim.start()
                kills += 1
            # Without a lease that was lost to the machine, each attempt was killed.
            excuses = lost(*cluster.engines)
            assert kills == 2 or excuses and kills < 2, (kills, excuses)
            assert await api.wait_run(thread, made["run_id"]) == "error"
            path = f"/threads/{thread}/runs/{made['run_id']}"
            joined = await post_again_get(api, path + "/join")
            message = joined.json["__error__"]["message"]
            assert message == "given up after 2 attempts" or \
                excuses and re.fullmatch(r"given up after \d+ attempts", message), message
            events = await api.stream("GET", path + "/stream")
            assert [event.name for event in events][-1] == "error"
            assert (await api.get(f"/threads/{thread}")).json["status"] == "error"
            values = (await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "alive"))).json
            assert "alive" in json.dumps(values["messages"][-1])
    run(body(), seconds=120)


async def post_again_get(api, path):
    async def answered():
        answer = await api.get(path, want=None)
        return answer if answer.status < 500 else None
    return await eventually(answered, "an answer")


# ---- ttl


def test_a_thread_goes_when_its_ttl_is_over_and_not_before(cluster):
    async def body():
        async with connect(cluster.url) as api:
            ttl = {"strategy": "delete", "ttl": TTL_MINUTES}
            made = (await api.post("/threads", {"ttl": ttl})).json
            thread = made["thread_id"]
            forever = await api.new_thread()
            shown = (await api.get(f"/threads/{thread}?include=ttl")).json["ttl"]
            assert shown["strategy"] == "delete" and shown["ttl_minutes"] == TTL_MINUTES
            first = datetime.datetime.fromisoformat(shown["expires_at"])
            # In use it stays, however long that takes: five steps of 0.3 s, twice.
            for _ in range(2):
                await api.post(f"/threads/{thread}/runs/wait", run_of("steps", "go"))
            shown = (await api.get(f"/threads/{thread}?include=ttl")).json["ttl"]
            expires = datetime.datetime.fromisoformat(shown["expires_at"])
            assert expires - first > datetime.timedelta(seconds=2), "it counts from its last use"

            async def gone():
                return (await api.get(f"/threads/{thread}", want=None)).status == 404
            await eventually(gone, "it expires", 60)
            assert datetime.datetime.now(datetime.timezone.utc) >= expires
            for route in ("/state", "/history", "/runs"):
                is_error(await api.get(f"/threads/{thread}{route}", want=404), "not_found")
            assert (await api.get(f"/threads/{forever}")).status == 200
            await api.call("PATCH", f"/threads/{forever}", {"ttl": {"ttl": 0.02}})
            async def also_gone():
                return count_rows(cluster, "threads") == 0
            await eventually(also_gone, "a patched ttl counts too", 60)
            assert count_rows(cluster, "journal") == 0 and count_rows(cluster, "runs") == 0
    run(body(), seconds=90)


def test_keep_latest_leaves_the_newest_checkpoint(cluster):
    async def body():
        async with connect(cluster.url) as api:
            ttl = {"strategy": "keep_latest", "ttl": TTL_MINUTES}
            thread = (await api.post("/threads", {"ttl": ttl})).json["thread_id"]
            runs = []
            for turn in range(3):
                answer = await api.post(f"/threads/{thread}/runs/stream",
                                        run_of("echo", f"turn {turn}", stream_mode=VALUES))
                runs.append(answer.headers["content-location"])
            before = (await api.get(f"/threads/{thread}/history")).json

            async def pruned():
                history = (await api.get(f"/threads/{thread}/history")).json
                return history if len(history) == 1 else None
            kept = await eventually(pruned, "the older checkpoints go", 60)
            assert kept[0]["values"] == before[0]["values"]
            assert kept[0]["checkpoint"] == before[0]["checkpoint"]
            assert kept[0]["parent_checkpoint"] is None
            old = before[-1]["checkpoint"]["checkpoint_id"]
            is_error(await api.get(f"/threads/{thread}/state/{old}", want=404), "not_found")
            values = (await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "more"))).json
            assert len(values["messages"]) == 8
            # The stream of a run whose events are gone says so, and what to read instead.
            restart_all(cluster)
            await post_again_get(api, runs[-1])
            events = await api.stream("GET", runs[-1] + "/stream")
            assert [event.name for event in events] == ["metadata", "error"]
            assert f"/threads/{thread}/state" in events[-1].data["message"]
            again = await api.stream("GET", runs[-1] + "/stream",
                                     headers={"last-event-id": events[-1].id})
            assert again == [], "said once"
            is_error(await api.get(runs[0] + "/join", want=404), "not_found")
    run(body(), seconds=90)


def test_old_checkpoints_go_and_the_rest_is_as_before(cluster):
    """checkpoints-kept 4: those that are older than a key's time and not among the newest."""
    async def body():
        async with connect(cluster.url) as api:
            thread = await api.new_thread()
            states, turns = {}, 0

            async def turn():
                nonlocal turns
                turns += 1
                await api.post(f"/threads/{thread}/runs/wait", run_of("echo", f"turn {turns}"))
                history = (await api.get(f"/threads/{thread}/history?limit=1000")).json
                for one in history:
                    id_ = one["checkpoint"]["checkpoint_id"]
                    assert states.setdefault(id_, one["values"]) == one["values"]
                for newer, older in zip(history, history[1:]):
                    assert newer["parent_checkpoint"] == older["checkpoint"]
                assert history[-1]["parent_checkpoint"] is None
                assert len(history[0]["values"]["messages"]) == 2 * turns
                for at in (history[0], history[-1]):
                    id_ = at["checkpoint"]["checkpoint_id"]
                    state = await api.get(f"/threads/{thread}/state/{id_}", want=(200, 404))
                    if state.status == 200:
                        assert state.json["values"] == states[id_]
                    else:  # pruned since it was listed
                        listed = (await api.get(f"/threads/{thread}/history?limit=1000")).text
                        assert at is not history[0] and id_ not in listed
                return len(history)
            began = time.monotonic()
            for _ in range(15):
                count = await turn()
                assert count == 3 * turns or time.monotonic() - began > KEY_SECONDS, \
                    "all are younger than a key's time"

            async def shorter():
                return await turn() < 3 * turns
            await eventually(shorter, "old ones go", 80)
            pruned = sum(engine.metrics()["heddle_scheduler_checkpoints_pruned_total"]
                         for engine in cluster.engines)
            assert pruned >= 16
            restart_all(cluster)
            assert len(await api.thread_messages(thread)) == 2 * turns
    run(body(), seconds=150)


# ---- what a sweep costs


SWEPT_THREADS = int(os.environ.get("HEDDLE_SWEPT_THREADS", "20000"))
CLIENTS = 16
# Threads that expired long ago, of the engines that live or of one that is gone, each with a run and
# four checkpoints of 600 bytes.
MANY_THREADS = """
INSERT INTO heddle.threads (thread_key, epoch, head_seq, created_at, updated_at, thread_id, owner,
    status, metadata, interrupts, ttl, ttl_strategy, expires_at)
  SELECT 1000000000 + n, 1, 3, 0, 0, gen_random_uuid(), (ARRAY(SELECT engine_id FROM heddle.engines)
    || gen_random_uuid())[1 + n % 3], 0, '{}', '{}', 60000000, 0, 1 FROM generate_series(1, COUNT) n;
INSERT INTO heddle.journal (thread_key, seq, parent, base, created_at, checkpoint_id, run_id, step,
    head, data) SELECT 1000000000 + n, seq, seq - 1, 0, 0, gen_random_uuid(), gen_random_uuid(), seq,
    repeat('x', 100), convert_to(repeat('y', 500), 'UTF8') FROM generate_series(1, COUNT) n,
    generate_series(0, 3) seq;
INSERT INTO heddle.runs (thread_key, created_at, updated_at, run_id, assistant_id, attempt, status,
    is_open, request_hash, multitask_strategy, error, metadata, kwargs) SELECT 1000000000 + n, 0, 0,
    gen_random_uuid(), gen_random_uuid(), 1, 2, false, '', 'enqueue', '', '{}', '{}'
    FROM generate_series(1, COUNT) n;
ANALYZE"""


class Turns:
    """Clients that send one turn after another, each on its thread; the seconds each took."""

    def __init__(self, api):
        self.api = api
        self.seconds = []
        self._stopping = False

    async def run_while(self, condition, what, seconds):
        tasks = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        try:
            return await eventually(condition, what, seconds)
        finally:
            self._stopping = True
            await asyncio.gather(*tasks)

    async def _client(self):
        thread = await self.api.new_thread()
        while not self._stopping:
            answer = await self.api.post(f"/threads/{thread}/runs/wait", run_of("echo", "x"))
            self.seconds.append(answer.seconds)

    def of(self, share):
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))]


def test_a_sweep_of_many_threads_does_not_stall_writes(tmp_path):
    async def body(cluster):
        async with connect(cluster.url) as api:
            before, during = Turns(api), Turns(api)
            async def enough():
                return len(before.seconds) >= 3000
            await before.run_while(enough, "3,000 turns", 60)
            psql(cluster, MANY_THREADS.replace("COUNT", str(SWEPT_THREADS)))

            def expired():
                return sum(engine.metrics()["heddle_scheduler_threads_expired_total"]
                           for engine in cluster.engines)
            began, asked = time.monotonic(), 0.0

            async def swept():
                nonlocal asked
                if time.monotonic() - asked < 0.5:
                    return False
                asked = time.monotonic()
                return expired() >= SWEPT_THREADS
            await during.run_while(swept, "all are swept", 240)
            took = time.monotonic() - began
            print(f"{SWEPT_THREADS} threads in {took:.1f} s, {SWEPT_THREADS / took:.0f}/s; a turn of "
                  f"{CLIENTS} at once, ms: before p50 {before.of(.5) * 1e3:.1f} p99 "
                  f"{before.of(.99) * 1e3:.1f} longest {before.of(1) * 1e3:.1f}; during p50 "
                  f"{during.of(.5) * 1e3:.1f} p99 {during.of(.99) * 1e3:.1f} longest "
                  f"{during.of(1) * 1e3:.1f} ({len(during.seconds)} turns)")
            assert expired() == SWEPT_THREADS, "none twice"
            assert count_rows(cluster, "threads") == 2 * CLIENTS
            assert during.of(.99) < max(10 * before.of(.99), 0.25)
            # A machine that stands still once makes each client's turn of that moment slow.
            assert sum(each > SLOW_SECONDS for each in during.seconds) <= CLIENTS
    with slow_cluster(tmp_path, store="postgres", latency=1.0, engines=2, workers=2,
                      engine_options=("--sweep-seconds", 1)) as cluster:
        run(body(cluster), seconds=300)
        cluster.check_clean()
