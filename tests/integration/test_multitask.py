"""The four multitask strategies by their vectors, through two nginx processes and two engines."""

import asyncio
import json
import pathlib

import pytest

from api_client import connect, run_of, text_of
from clusters import run, slow_cluster

VECTORS = json.loads((pathlib.Path(__file__).parent / "multitask_vectors.json").read_text())
CLIENTS = 16


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def cluster(request, tmp_path_factory):
    with slow_cluster(tmp_path_factory.mktemp("multitask"), store=request.param, latency=1.0,
                      engines=2, workers=1, nginxes=2) as made:
        yield made
        made.check_clean()


def humans(messages):
    return [text_of(message) for message in messages if message["type"] == "human"]


async def check_linear(api, thread):
    history = (await api.get(f"/threads/{thread}/history?limit=1000")).json
    ids = [entry["checkpoint"]["checkpoint_id"] for entry in history]
    parents = [(entry["parent_checkpoint"] or {}).get("checkpoint_id") for entry in history]
    assert parents == ids[1:] + [None], "one line"


async def play(apis, vector):
    """One thread: a run executes, one waits, and a third comes with the vector's strategy."""
    here, there = apis
    thread = await here.new_thread()
    path = f"/threads/{thread}/runs"
    # It has to be under way until the newer one has come.
    agent = "sluggish" if vector["executing"] == "success" else "long"
    executing = (await here.post(path, run_of(agent, "executing"))).json["run_id"]
    await here.wait_run(thread, executing, statuses=("running",))
    waiting = (await there.post(path, run_of("slow", "waiting"))).json["run_id"]
    older = {"executing": executing, "waiting": waiting}
    joined = {name: asyncio.create_task(api.get(f"{path}/{older[name]}/join", want=None))
              for name, api in zip(older, apis)}
    newer = await there.post(f"{path}/wait", run_of("slow", "newer",
                                                    multitask_strategy=vector["strategy"]),
                             want=None)
    if vector["newer"] == "success":
        assert newer.status == 200 and text_of(newer.json["messages"][-2]) == "newer", newer.text
    else:
        assert newer.status == vector["newer"], newer.text
    for name, run_id in older.items():
        if vector[name] == "gone":
            await here.get(f"{path}/{run_id}", want=404)
        else:
            assert await here.wait_run(thread, run_id) == vector[name], name
        outcome = (await joined[name]).json
        if vector[name] == "success":
            assert humans(outcome["messages"])[-1] == name, "its own outcome"
        else:
            assert "__error__" in outcome or "code" in outcome, outcome
    assert humans(await there.thread_messages(thread)) == vector["humans"]
    assert (await here.get(f"/threads/{thread}")).json["status"] == "idle"
    await check_linear(there, thread)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["strategy"])
def test_a_newer_run_meets_an_executing_and_a_waiting_one(cluster, vector):
    async def body():
        async with connect(cluster.urls[0]) as here, connect(cluster.urls[1]) as there:
            await asyncio.gather(*[play((here, there) if number % 2 else (there, here), vector)
                                   for number in range(CLIENTS)])
    run(body(), seconds=100)


@pytest.mark.parametrize("strategy", ["enqueue", "interrupt", "rollback"])
def test_many_at_once_on_one_thread(cluster, strategy):
    """Each client gets its own run's outcome; what is left of the thread is what succeeded."""
    async def body():
        async with connect(cluster.urls[0]) as here, connect(cluster.urls[1]) as there:
            thread = await here.new_thread()
            path = f"/threads/{thread}/runs/wait"
            answers = await asyncio.gather(*[
                (here, there)[number % 2].post(path, run_of("quick", f"client {number}",
                                                            multitask_strategy=strategy))
                for number in range(CLIENTS)])
            succeeded = []
            for number, answer in enumerate(answers):
                if "__error__" not in answer.json:
                    assert humans(answer.json["messages"])[-1] == f"client {number}"
                    succeeded.append(f"client {number}")
            assert succeeded, "the last one is never stopped"
            if strategy == "enqueue":
                assert len(succeeded) == CLIENTS
            left = humans(await here.thread_messages(thread))
            if strategy == "rollback":
                assert sorted(left) == sorted(succeeded)
            else:
                assert set(succeeded) <= set(left)
            await check_linear(there, thread)
            runs = (await there.get(f"/threads/{thread}/runs?limit=100")).json
            assert sum(one["status"] == "success" for one in runs) == len(succeeded)
            assert len(runs) == (len(succeeded) if strategy == "rollback" else CLIENTS)
    run(body(), seconds=60)
