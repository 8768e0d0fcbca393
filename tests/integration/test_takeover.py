"""A response goes on when the engine that gives it dies, stops or is told to leave."""

import asyncio
import os
import re
import signal
import time
import uuid

import pytest

from api_client import connect, eventually, human, run_of, text_of
from clusters import STEPS, engine_metrics, run, slow_cluster
from harness import SHORT_LEASE_MS, new_database, postgres_cluster
from silent_reader import SilentReader
from stalls import Watch, lost, stop

WORDS = 30
TAKEOVER_SECONDS = 30.0  # of a model of a minute, not a bound of the takeover's speed
GAP_SECONDS = 15.0       # lease, detection and the sweep take about 3 s; likewise
LEAVE_SECONDS = 5.0
GONE_SECONDS = 30.0      # where the machine stands still


@pytest.fixture(params=["sqlite", "postgres"])
def cluster(request, tmp_path):
    with slow_cluster(tmp_path, store=request.param, latency=4.0, step_seconds=1.0, engines=2,
                      workers=2, lease_ms=SHORT_LEASE_MS) as made:
        yield made
        made.check_clean()


def find_owner(cluster):
    """The one engine that executes a run; None if no engine does."""
    found = [engine for engine in cluster.engines
             if engine.metrics()["heddle_scheduler_runs_running"] > 0]
    assert len(found) < 2, "one run, one engine"
    return found[0] if found else None


def owner_of(cluster):
    found = find_owner(cluster)
    assert found, "the run is not over yet"
    return found


def wordy(text):
    return run_of("wordy", text, stream_mode=["values", "updates", "messages-tuple"],
                  if_not_exists="create")


def check_whole(received, text, attempts, before=0, excuses=()):
    """Every step's event once, ids ascending, tokens of the last attempt whole.

    `before`: messages of the thread before this turn. `excuses`: what was lost to the machine,
    which may have cost further attempts."""
    ids = [int(event.id) for event in received]
    assert ids == sorted(set(ids)), "each event once, in order"
    made = [event.data["attempt"] for event in received if event.name == "metadata"]
    further = made == sorted(set(made)) and made[0] == 1 and len(made) >= len(attempts)
    assert made == attempts or (excuses and further), (made, excuses)
    values = [event.data for event in received if event.name == "values"]
    assert [len(one["messages"]) - before for one in values] == [1, 2]
    updates = [event for event in received if event.name == "updates"]
    assert [list(event.data) for event in updates] == [["assistant"]]
    answer = text_of(values[-1]["messages"][-1])
    assert text in answer
    last = max(number for number, event in enumerate(received) if event.name == "metadata")
    tokens = [text_of(event.data[0]) for event in received[last:] if event.name == "messages"]
    # An attempt that was over before its reader found it leaves no tokens, and says so.
    told = excuses and [event for event in received[last:] if event.name == "lost"]
    assert "".join(tokens) == answer or told, \
        ("the last attempt's tokens are the answer", [event.name for event in received])


async def stream_until(api, thread, body, count, act):
    """Reads a whole stream; calls `act` when `count` tokens have come. Longest gap after that."""
    received, gap, acted = [], 0.0, None
    async with api.open_stream("POST", f"/threads/{thread}/runs/stream", body) as (_, events):
        async for event in events:
            if acted is not None:
                gap = max(gap, event.at - max(acted, received[-1].at))
            received.append(event)
            tokens = sum(1 for one in received if one.name == "messages")
            if acted is None and tokens >= count:
                act()
                acted = time.monotonic()
    return received, gap


def test_stream_goes_on_in_the_same_response_when_its_engine_is_killed(cluster):
    async def body():
        async with connect(cluster.url) as api:
            thread = await api.new_thread()
            await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "before"))
            # As SDKs do: they name the checkpoint that they go on from.
            newest = (await api.get(f"/threads/{thread}/state")).json["checkpoint"]
            victims = []

            def kill():
                victims.append(owner_of(cluster))
                victims[0].kill9()
            asked = {**wordy("once more"), "checkpoint": newest}
            received, gap = await stream_until(api, thread, asked, 5, kill)
            print(f"longest gap {gap:.2f} s")
            assert gap < GAP_SECONDS
            check_whole(received, "once more", [1, 2], before=2, excuses=lost(*cluster.engines))
            victims[0].start()

            # Whoever joins later, from the start or from any event, gets the same.
            run_id = received[0].data["run_id"]
            path = f"/threads/{thread}/runs/{run_id}/stream"
            steps = [(event.id, event.name, event.data) for event in received
                     if event.name in ("values", "updates")]
            again = await api.stream("GET", path)
            assert [(event.id, event.name, event.data) for event in again
                    if event.name in ("values", "updates")] == steps
            rest = await api.stream("GET", path, headers={"last-event-id": steps[0][0]})
            assert [(event.id, event.name, event.data) for event in rest
                    if event.name in ("values", "updates")] == steps[1:]
    run(body(), seconds=90)


def test_stream_goes_on_when_its_engine_stops_and_the_stopped_one_says_nothing_more(cluster):
    async def body():
        async with connect(cluster.url) as api:
            thread = await api.new_thread()
            stopped, before = [], []

            def stop_owner():
                stopped.append(owner_of(cluster))
                before.extend(lost(*stopped))
                stop(cluster, stopped[0])
            try:
                received, gap = await stream_until(api, thread, wordy("awake"), 5, stop_owner)
            finally:
                os.kill(stopped[0].pid, signal.SIGCONT)
            print(f"longest gap {gap:.2f} s")
            others = [engine for engine in cluster.engines if engine is not stopped[0]]
            check_whole(received, "awake", [1, 2], excuses=before + lost(*others))
            messages = await api.thread_messages(thread)
            assert [message["type"] for message in messages] == ["human", "ai"]
    run(body(), seconds=90)


@pytest.mark.parametrize("on_disconnect, status", [("cancel", "interrupted"),
                                                   ("continue", "success")])
def test_a_client_that_leaves_while_its_engine_is_dead_is_obeyed(tmp_path, on_disconnect, status):
    """Who takes the run over learns that its client has left."""
    async def body(made):
        (engine,), (edge,) = made.engines, made.edges
        async with connect(made.url) as api:
            thread = await api.new_thread()
            agent = "long" if on_disconnect == "cancel" else "sluggish"
            client = SilentReader(made.url, f"/threads/{thread}/runs/stream",
                                  run_of(agent, "hi", on_disconnect=on_disconnect))
            (run_id,) = [one["run_id"] for one in await eventually(
                lambda: begun(api, thread), "the run executes")]
            engine.kill9()

            async def is_known():
                (pool,) = (await api.get("/heddle/status")).json["pools"]
                return pool["engines"][0]["state"] == "down"
            await eventually(is_known, "nginx knows that the engine is dead")
            client.close()

            async def has_left():
                return "prematurely closed connection" in edge.error_log.read_text()
            await eventually(has_left, "nginx knows that the client has left")
            engine.start()

            async def is_over():
                answer = await api.get(f"/threads/{thread}/runs/{run_id}", want=None)
                return answer.status == 200 and answer.json["status"] not in ("pending", "running") \
                    and answer.json["status"]
            assert await eventually(is_over, "the run is over", TAKEOVER_SECONDS) == status
    with slow_cluster(tmp_path, latency=2.0, engines=1, workers=1,
                      lease_ms=SHORT_LEASE_MS) as made:
        run(body(made), seconds=90)
        made.check_clean()


async def begun(api, thread):
    runs = (await api.get(f"/threads/{thread}/runs")).json
    return [one for one in runs if one["status"] == "running"]


@pytest.mark.parametrize("path", ["/threads/{}/runs/wait", "/runs/wait"])
def test_wait_is_answered_when_the_engine_is_killed(cluster, path):
    async def body():
        async with connect(cluster.url) as api:
            thread = await api.new_thread()
            call = asyncio.create_task(
                api.post(path.format(thread), run_of("slow", "still there")))

            async def running():
                return any(engine.metrics()["heddle_scheduler_runs_running"] > 0
                           for engine in cluster.engines)
            await eventually(running, "the run executes")
            victim = owner_of(cluster)
            victim.kill9()
            answer = await call
            texts = [text_of(message) for message in answer.json["messages"]]
            assert texts[0] == "still there" and '[turn 1: "still there"]' in texts[1]
            assert len(texts) == 2
            victim.start()
    run(body(), seconds=90)


def test_a_joiner_and_the_one_who_began_both_get_everything(cluster):
    async def body():
        async with connect(cluster.url) as api:
            thread = await api.new_thread()
            began = asyncio.Event()
            victims = []

            async def begin():
                received = []
                async with api.open_stream("POST", f"/threads/{thread}/runs/stream",
                                           wordy("for two")) as (_, events):
                    async for event in events:
                        received.append(event)
                        if event.name == "messages":
                            began.set()
                return received
            first = asyncio.create_task(begin())
            await asyncio.wait_for(began.wait(), 20)
            runs = (await api.get(f"/threads/{thread}/runs")).json
            path = f"/threads/{thread}/runs/{runs[0]['run_id']}/stream"
            joined = asyncio.create_task(api.stream("GET", path))
            waiting = asyncio.create_task(
                api.get(f"/threads/{thread}/runs/{runs[0]['run_id']}/join"))

            async def has_three():
                owner = find_owner(cluster)
                return owner and owner.metrics()["heddle_transport_streams_open"] >= 3
            await eventually(has_three, "three readers at one engine")
            victims.append(owner_of(cluster))
            victims[0].kill9()
            for received in await asyncio.gather(first, joined):
                check_whole(received, "for two", [1, 2], excuses=lost(*cluster.engines))
            values = (await waiting).json
            assert [message["type"] for message in values["messages"]] == ["human", "ai"]
            victims[0].start()
    run(body(), seconds=90)


def test_a_repeat_with_the_same_key_gets_the_run_that_there_was(cluster):
    async def body():
        async with connect(cluster.url) as api:
            thread = await api.new_thread()
            headers = {"idempotency-key": "order 7"}
            path = f"/threads/{thread}/runs/wait"
            first = await api.post(path, run_of("echo", "one"), headers=headers)
            await api.post(path, run_of("echo", "two"))
            for engine in cluster.engines:  # nothing of it is left in memory
                engine.kill9()
                engine.start()

            async def again():
                answer = await api.post(path, run_of("echo", "one"), headers=headers, want=None)
                return answer if answer.status == 200 else None
            repeated = await eventually(again, "engines that answer")
            assert repeated.body == first.body, "as it was then, not as the thread is now"
            other = await api.post(path, {**run_of("echo", "one"), "input": {
                "messages": [human("something else")]}}, headers=headers, want=422)
            assert other.json["code"] == "idempotency_mismatch"
            assert len((await api.get(f"/threads/{thread}/runs")).json) == 2
    run(body(), seconds=90)


STREAMS = 60
DURABILITIES = ["async", "exit", "sync"]
RUNS = int(os.environ.get("HEDDLE_RUNS", "1000"))


async def leave(leaving):
    """SIGTERM: the process ends."""
    asked = time.monotonic()
    os.kill(leaving.pid, signal.SIGTERM)

    async def gone():
        return leaving.process.poll() is not None
    with Watch() as watch:
        await eventually(gone, "it ends", GONE_SECONDS)
    took = time.monotonic() - asked
    print(f"gone after {took:.2f} s")
    assert took < LEAVE_SECONDS or watch.pauses
    assert leaving.process.returncode == 0


def test_an_engine_that_is_told_to_leave_hands_its_runs_on(cluster):
    """SIGTERM: every response goes on, no superstep is done twice, the process ends."""
    async def body():
        async with connect(cluster.url) as api:
            threads = await asyncio.gather(*[api.new_thread() for _ in range(2 * STREAMS)])
            answered = asyncio.gather(
                *[api.stream("POST", f"/threads/{thread}/runs/stream",
                             run_of("steps", "go", stream_mode=["updates", "values"],
                                    durability=DURABILITIES[number % 3]))
                  for number, thread in enumerate(threads[:STREAMS])],
                *[api.post(f"/threads/{thread}/runs/wait",
                           run_of("steps", "go", durability=DURABILITIES[number % 3]))
                  for number, thread in enumerate(threads[STREAMS:])])

            leaving = cluster.engines[0]

            async def all_are_accepted():
                metrics = engine_metrics(cluster)
                return metrics["heddle_scheduler_runs_accepted_total"] >= 2 * STREAMS and \
                    leaving.metrics()["heddle_scheduler_runs_running"] > 0
            await eventually(all_are_accepted, "all runs are accepted, and some execute here")
            await leave(leaving)
            received = await answered
            attempts = 0
            for events in received[:STREAMS]:
                ids = [int(event.id) for event in events]
                assert ids == sorted(set(ids))
                attempts += [event.name for event in events].count("metadata")
                steps = [name for event in events if event.name == "updates" for name in event.data]
                assert steps == [f"step{number}" for number in range(1, STEPS + 1)]
                values = [event.data for event in events if event.name == "values"]
                assert [len(one["messages"]) for one in values] == list(range(1, STEPS + 2))
            assert lost(*cluster.engines) or attempts <= STREAMS + cut_supersteps(leaving), \
                "no further attempt"
            for answer in received[STREAMS:]:
                assert len(answer.json["messages"]) == STEPS + 1
            for engine in cluster.engines[1:]:
                assert engine.metrics()["heddle_scheduler_runs_failed_total"] == 0
            leaving.start()
    run(body(), seconds=90)


def cut_supersteps(left):
    """Of a machine too slow to end all of them within `drain-seconds`; so the engine says."""
    return sum(int(number) for number in re.findall(r"too long to end here: (\d+);", left.output()))


def ask(cluster, statement):
    database = cluster.store_url.rsplit("/", 1)[1].split("?")[0]
    return postgres_cluster().ask(statement, database=database)


async def leave_to_other(cluster):
    """How many runs began a superstep again, as the engine says."""
    leaving, _ = cluster.engines
    await leave(leaving)
    return cut_supersteps(leaving)


async def die(cluster):
    """kill -9: the other engine has begun every run again, after the lease of 2 s. How many."""
    leaving, other = cluster.engines
    asked = time.monotonic()
    leaving.kill9()
    left = int(ask(cluster, "SELECT count(*) FROM heddle.runs WHERE is_open"))
    assert left >= RUNS / 2, "most of them were not over yet"

    async def has_all():
        return other.metrics()["heddle_scheduler_runs_recovered_total"] >= left
    await eventually(has_all, "all are taken over", TAKEOVER_SECONDS)
    print(f"{left} runs, taken over after {time.monotonic() - asked:.2f} s")
    return left


@pytest.mark.parametrize("end", [leave_to_other, die])
def test_an_engine_with_many_runs_goes(tmp_path, end):
    """HEDDLE_RUNS (1000) runs, all of them its own; another engine comes and has them all after it."""
    async def body(cluster):
        leaving, other = cluster.engines
        other.kill9()
        async with connect(cluster.url) as api:
            async def whole(number):
                thread = str(uuid.uuid4())
                answer = await api.post(f"/threads/{thread}/runs/wait",
                                        run_of("steps", f"n {number}", if_not_exists="create",
                                               durability=DURABILITIES[number % 3]))
                texts = [text_of(message) for message in answer.json["messages"]]
                assert len(texts) == STEPS + 1 and texts[0] == f"n {number}"
            answered = asyncio.gather(*[whole(number) for number in range(RUNS)])

            async def all_are_accepted():
                return leaving.metrics()["heddle_scheduler_runs_accepted_total"] >= RUNS
            await eventually(all_are_accepted, "all runs are accepted", 30)
            await asyncio.to_thread(other.start)
            await asyncio.to_thread(cluster.wait_connected)
            again = await end(cluster)
            await answered
            assert other.metrics()["heddle_scheduler_runs_failed_total"] == 0
            ended = ask(cluster, "SELECT status, attempt, count(*) FROM heddle.runs "
                                 "GROUP BY 1, 2 ORDER BY 1, 2")
            print(f"{again} of {RUNS} supersteps begun again")
            rows = [tuple(int(field) for field in row.split("|")) for row in ended.split("\n")]
            assert {status for status, _, _ in rows} == {2}, "all succeeded"
            assert sum(count for _, _, count in rows) == RUNS
            excuses = lost(leaving, other)
            assert excuses or [row[1:] for row in rows] == [
                (attempt, count) for attempt, count in ((1, RUNS - again), (2, again)) if count]
            print(f"attempts {rows}, {excuses[:5]}")
            leaving.start()
    with slow_cluster(tmp_path, latency=0.5, step_seconds=2.0, store="postgres", engines=2,
                      workers=2, lease_ms=SHORT_LEASE_MS) as cluster:
        run(body(cluster), seconds=120)
        cluster.check_clean()


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_an_engine_that_is_started_anew_in_its_place_is_waited_for(tmp_path, store):
    async def body(made):
        async with connect(made.url) as api:
            thread = await api.new_thread()
            for turn in range(1, 4):
                await api.post(f"/threads/{thread}/runs/wait", run_of("echo", f"turn {turn}"))
                (engine,) = made.engines
                engine.kill9()
                engine.start()
                made.wait_connected()
            # Its lease has not passed yet, and whoever asks the new one is named its own place.
            answer = (await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "last"))).json
            assert [text_of(one) for one in answer["messages"][::2]] == [
                "turn 1", "turn 2", "turn 3", "last"]
    with slow_cluster(tmp_path, store=store, latency=0.1, engines=1, workers=2,
                      lease_ms=SHORT_LEASE_MS) as made:
        run(body(made))
        made.check_clean()


def test_a_store_that_takes_no_steps_for_a_while_costs_a_run_no_attempt(tmp_path):
    """As a server with a full disk: rows that are there may change, and none can be added."""
    async def body(made):
        def ask_it(statement):
            return ask(made, statement)

        async with connect(made.url) as api:
            thread = await api.new_thread()
            await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "before"))
            # Three rows a turn: its input, the state with that, the state after the one step.
            ask_it("CREATE FUNCTION heddle.no_room() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
                   "RAISE 'no space left on device' USING ERRCODE = '53100'; END$$; "
                   "CREATE TRIGGER no_room BEFORE INSERT ON heddle.journal "
                   "FOR EACH ROW WHEN (NEW.seq >= 5) EXECUTE FUNCTION heddle.no_room()")
            waiting = asyncio.create_task(
                api.post(f"/threads/{thread}/runs/wait", run_of("quick", "after"), want=None))

            async def tried_often():
                return int(ask_it("SELECT max(attempt) FROM heddle.runs")) >= 5
            await eventually(tried_often, "it is begun more often than attempts-max", 60)
            assert ask_it("SELECT max(seq) FROM heddle.journal") == "4", "it got as far as its step"
            ask_it("DROP TRIGGER no_room ON heddle.journal")
            answer = await waiting
            assert answer.status == 200, answer.text
            assert "__error__" not in answer.json, answer.json
            assert [text_of(one) for one in answer.json["messages"][::2]] == ["before", "after"]
            runs = (await api.get(f"/threads/{thread}/runs")).json
            assert [one["status"] for one in runs] == ["success", "success"]
    with slow_cluster(tmp_path, store=new_database(), latency=0.5, engines=2, workers=2,
                      lease_ms=SHORT_LEASE_MS) as made:
        run(body(made))


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_a_resumable_stream_outlives_every_engine(tmp_path, store):
    """What has ended is read by whoever is asked; nobody has to be given up for that."""
    async def body(made):
        async with connect(made.url) as api:
            thread = await api.new_thread()
            begun = await api.stream("POST", f"/threads/{thread}/runs/stream",
                                     {**wordy("kept"), "stream_resumable": True})
            check_whole(begun, "kept", [1])
            for engine in made.engines:
                engine.kill9()
                engine.start()
            made.wait_connected()
            path = f"/threads/{thread}/runs/{begun[0].data['run_id']}/stream"
            everything = [(event.id, event.name, event.data) for event in begun]
            again = await api.stream("GET", path)
            assert [(event.id, event.name, event.data) for event in again] == everything
            middle = len(begun) // 2
            rest = await api.stream("GET", path, headers={"last-event-id": begun[middle].id})
            assert [(event.id, event.name, event.data) for event in rest] == everything[middle + 1:]
    with slow_cluster(tmp_path, store=store, latency=2.0, engines=2, workers=2) as made:
        run(body(made), seconds=60)
        made.check_clean()
