"""What an engine keeps in memory has bounds of its own; nobody who talks to it sees them, except that
it says so when it takes no more."""

import asyncio

import pytest

from api_client import connect, eventually, is_error, run_of, text_of
from clusters import STEPS, run, slow_cluster

KB = 1 << 10
SHARDS = 2
THREADS_BYTES = OPEN_RUNS_BYTES = 64 * KB  # a shard
MODEL_SECONDS = 0.5
THREADS, LARGE = 30, 10 * KB
STREAMS, SMALL = 16, 2 * KB


@pytest.fixture(params=["sqlite", "postgres"])
def narrow(request, tmp_path):
    """One engine with room for a handful of conversations."""
    options = ("--threads-bytes-max", THREADS_BYTES, "--open-runs-bytes-max", OPEN_RUNS_BYTES,
               "--active-logs-bytes-max", 8 * KB, "--ended-runs-bytes-max", 4 * KB)
    with slow_cluster(tmp_path, latency=MODEL_SECONDS, step_seconds=0.1, engines=1,
                      store=request.param, engine_options=options) as cluster:
        yield cluster
        cluster.check_clean()


def texts_of(messages):
    return [text_of(message) for message in messages if message["type"] == "human"]


def test_conversations_that_left_memory_go_on(narrow):
    async def body():
        async with connect(narrow.url) as api:
            threads = [await api.new_thread() for _ in range(THREADS)]
            few = asyncio.Semaphore(4)

            async def turn(index, word):
                async with few:
                    answer = await api.post(f"/threads/{threads[index]}/runs/wait",
                                            run_of("echo", f"{word} {index} " + "x" * LARGE))
                return answer.json["messages"]

            async def rested():
                metrics = narrow.engines[0].metrics()
                return metrics["heddle_scheduler_threads_bytes"] <= SHARDS * THREADS_BYTES
            for word in ("first", "second"):
                await asyncio.gather(*(turn(index, word) for index in range(THREADS)))
                await eventually(rested, "the threads' bound")
            for index in range(THREADS):
                texts = texts_of(await turn(index, "third"))
                assert [text.split()[:2] for text in texts] == \
                    [[word, str(index)] for word in ("first", "second", "third")]
    run(body())


def test_runs_past_the_bound_are_refused_and_none_that_was_taken_is_lost(narrow):
    async def body():
        async with connect(narrow.url) as api:
            thread = await api.new_thread()
            path, taken = f"/threads/{thread}/runs", []
            for number in range(8):
                # The first one goes on until all are asked.
                agent = "slow" if number else "long"
                wanted = run_of(agent, f"{number} " + "x" * 2 * LARGE, multitask_strategy="enqueue")
                answer = await api.post(path, wanted, want=(200, 503))
                if answer.status == 200:
                    taken.append((str(number), answer.json["run_id"]))
                else:
                    is_error(answer, code="overloaded")
                    assert int(answer.headers["retry-after"]) >= 1
            assert 2 <= len(taken) <= OPEN_RUNS_BYTES // (2 * LARGE), taken
            for _ in range(2 * SHARDS):  # beside large ones of which no more are taken
                await api.post(f"/threads/{await api.new_thread()}/runs/wait",
                               run_of("echo", "small"))
            await api.post(f"{path}/{taken[0][1]}/cancel?wait=1", want=(200, 202, 204))
            outcomes = [await api.wait_run(thread, run_id) for _, run_id in taken]
            assert outcomes == ["interrupted"] + ["success"] * (len(taken) - 1)
            texts = texts_of(await api.thread_messages(thread))
            assert [text.split()[0] for text in texts] == [number for number, _ in taken]
            await api.post(f"{path}/wait", run_of("quick", "there is room again"))
    run(body())


def test_streams_get_every_step_though_no_log_has_room_for_it(narrow):
    async def body():
        async with connect(narrow.url) as api:
            async def follow(index):
                thread = await api.new_thread()
                wanted = run_of("steps", f"{index} " + "x" * SMALL, stream_mode=["values"])
                return await api.stream("POST", f"/threads/{thread}/runs/stream", wanted)

            for events in await asyncio.gather(*(follow(index) for index in range(STREAMS))):
                ids = [int(event.id) for event in events if event.id]
                assert ids == sorted(set(ids))
                steps = [len(event.data["messages"]) for event in events if event.name == "values"]
                assert steps == list(range(1, STEPS + 2)), [event.name for event in events]
    run(body())
