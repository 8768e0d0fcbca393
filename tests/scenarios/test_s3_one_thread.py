"""S3: many requests on one thread at once, and many threads at once.

What users measured elsewhere: empty answers and forked histories on one thread, and threads that
wait for one another. Here two nginx processes with two workers each, in front of two engines.
"""

import asyncio
import time
import uuid

import pytest

from api_client import connect, run_of, text_of
from clusters import run, slow_cluster

AT_ONCE = 16
THREADS_AT_ONCE = 200
MODEL_SECONDS = 1.0
SLOWDOWN_MAX = 1.5
ROUNDS = 3


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def cluster(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"s3-{request.param}")
    with slow_cluster(folder, store=request.param, latency=MODEL_SECONDS, engines=2, workers=2,
                      nginxes=2) as made:
        yield made
        made.check_clean()


async def one_run(api, thread, agent, text, route):
    """Starts a run by one of the three routes and returns its final messages."""
    body = run_of(agent, text)
    # A connection of its own each time, so that the requests spread over all workers.
    headers = {"connection": "close"}
    if route == "wait":
        answer = await api.post(f"/threads/{thread}/runs/wait", body, headers=headers)
        return answer.headers["content-location"].rsplit("/", 1)[1], answer.json["messages"]
    if route == "stream":
        events = await api.stream("POST", f"/threads/{thread}/runs/stream", body, headers=headers)
        assert "error" not in {event.name for event in events}, events
        values = [event.data for event in events if event.name == "values"]
        return events[0].data["run_id"], values[-1]["messages"]
    made = (await api.post(f"/threads/{thread}/runs", body, headers=headers)).json
    joined = (await api.get(f"/threads/{thread}/runs/{made['run_id']}/join", headers=headers)).json
    return made["run_id"], joined["messages"]


def pairs(messages):
    return [(message["id"], message["type"], text_of(message)) for message in messages]


async def check_history(api, thread, runs):
    """Every checkpoint has one child at most, and its parent is the one before it."""
    history = (await api.get(f"/threads/{thread}/history?limit=1000")).json
    assert len(history) == 3 * runs, "input, input applied and one node for each run"
    ids = [entry["checkpoint"]["checkpoint_id"] for entry in history]
    assert ids == sorted(set(ids), reverse=True)
    parents = [(entry["parent_checkpoint"] or {}).get("checkpoint_id") for entry in history]
    assert parents == ids[1:] + [None]
    assert [entry["metadata"]["step"] for entry in history] == \
        list(range(3 * runs - 2, -2, -1))


async def one_thread_at_once(apis, agent, routes):
    thread = await apis[0].new_thread()
    texts = [f"message {number} {uuid.uuid4()}" for number in range(AT_ONCE)]
    answers = await asyncio.gather(*[
        one_run(apis[number % len(apis)], thread, agent, text, routes[number % len(routes)])
        for number, text in enumerate(texts)])

    final = await apis[0].thread_messages(thread)
    assert [message["type"] for message in final] == ["human", "ai"] * AT_ONCE
    assert all(text_of(message) for message in final), "no empty answer"
    assert {text_of(message) for message in final[::2]} == set(texts)
    for human_message, answer in zip(final[::2], final[1::2]):
        assert text_of(human_message) in text_of(answer), "each answer is to the message before it"

    # Order of acceptance: the order of the runs' rows is the order of the messages.
    rows = (await apis[-1].get(f"/threads/{thread}/runs?limit=1000")).json[::-1]
    assert [row["status"] for row in rows] == ["success"] * AT_ONCE
    asked = [text_of(row["kwargs"]["input"]["messages"][0]) for row in rows]
    assert asked == [text_of(message) for message in final[::2]]
    place = {row["run_id"]: number for number, row in enumerate(rows)}

    # Every run saw exactly what was there when it ended: a prefix of the one history.
    assert {run_id for run_id, _ in answers} == set(place)
    for text, (run_id, messages) in zip(texts, answers):
        upto = 2 * (place[run_id] + 1)
        assert pairs(messages) == pairs(final[:upto])
        assert text_of(messages[-2]) == text
    await check_history(apis[0], thread, AT_ONCE)
    for api in apis[1:]:
        assert pairs(await api.thread_messages(thread)) == pairs(final)


def test_sixteen_runs_on_one_thread_through_one_nginx(cluster):
    async def body():
        async with connect(cluster.urls[0]) as api:
            for routes in (["wait"], ["stream"], ["create"], ["wait", "stream", "create"]):
                for agent in ("echo", "quick"):
                    await one_thread_at_once([api], agent, routes)
    run(body())


def test_sixteen_runs_on_one_thread_through_two_nginx(cluster):
    async def body():
        async with connect(cluster.urls[0]) as one, connect(cluster.urls[1]) as other:
            for agent in ("echo", "quick") * 3:
                await one_thread_at_once([one, other], agent, ["wait", "stream", "create"])
    run(body())


def test_sixteen_slow_runs_on_one_thread_take_their_turns(cluster):
    """With a model that takes a while every run but the first really waits in the queue."""
    async def body():
        async with connect(cluster.urls[0]) as one, connect(cluster.urls[1]) as other:
            await one_thread_at_once([one, other], "quick", ["wait", "stream"])
            assert cluster.model.stats()["max_concurrent"] >= 1
    cluster.model.reset()
    run(body())
    assert cluster.model.stats()["max_concurrent"] == 1, "one run of a thread at a time"


def test_many_first_messages_of_one_new_thread(cluster):
    """The thread does not exist yet and sixteen requests create it."""
    async def body():
        async with connect(cluster.urls[0]) as one, connect(cluster.urls[1]) as other:
            thread = str(uuid.uuid4())
            answers = await asyncio.gather(*[
                [one, other][number % 2].post(
                    f"/threads/{thread}/runs/wait",
                    run_of("echo", f"m{number}", if_not_exists="create"))
                for number in range(AT_ONCE)])
            lengths = sorted(len(answer.json["messages"]) for answer in answers)
            assert lengths == [2 * (number + 1) for number in range(AT_ONCE)]
            await check_history(one, thread, AT_ONCE)
    run(body())


async def two_hundred(cluster, apis):
    """Runs on as many threads at once; the seconds that they took, and model calls at once."""
    threads = [await apis[0].new_thread() for _ in range(THREADS_AT_ONCE)]
    cluster.model.reset()
    began = time.monotonic()
    answers = await asyncio.gather(*[
        apis[number % 2].post(f"/threads/{thread}/runs/wait",
                              run_of("sluggish", f"number {number}"))
        for number, thread in enumerate(threads)])
    total = time.monotonic() - began
    stats = cluster.model.stats()
    for number, answer in enumerate(answers):
        messages = answer.json["messages"]
        assert len(messages) == 2 and text_of(messages[0]) == f"number {number}"
        assert f'[turn 1: "number {number}"]' in text_of(messages[1])
    assert stats["calls"] == THREADS_AT_ONCE
    return total, stats["max_concurrent"]


def test_two_hundred_threads_do_not_wait_for_one_another(cluster):
    """A machine that stands still for a moment spoils one round, waiting every one."""
    async def body():
        async with connect(cluster.urls[0]) as one, connect(cluster.urls[1]) as other:
            thread = await one.new_thread()
            alone = (await one.post(f"/threads/{thread}/runs/wait",
                                    run_of("sluggish", "alone"))).seconds
            for _ in range(ROUNDS):
                total, calls = await two_hundred(cluster, [one, other])
                print(f"{THREADS_AT_ONCE} threads: {total:.3f} s, one alone {alone:.3f} s, "
                      f"{calls} model calls at once")
                if total <= SLOWDOWN_MAX * alone and calls == THREADS_AT_ONCE:
                    return
            raise AssertionError(f"threads wait for one another, {ROUNDS} times")
    run(body())
