"""What an application does with PyPI's langgraph-sdk, against the server in argv[1]. Runs in the SDK's
own virtual environment: nothing but the SDK and the standard library is there."""
import asyncio
import sys
import uuid

import httpx
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import ConflictError, NotFoundError

MODES = ["values", "updates", "messages-tuple"]


def user(text):
    return {"messages": [{"role": "user", "content": text}]}


def texts(values):
    return [message["content"] for message in values["messages"]]


async def refused(call, status):
    try:
        await call
    except (httpx.HTTPStatusError, ConflictError, NotFoundError) as error:
        assert error.response.status_code == status, error
        return
    raise AssertionError(f"not refused with {status}")


async def settled(client, thread_id, run_id):
    for _ in range(400):
        status = (await client.runs.get(thread_id, run_id))["status"]
        if status not in ("pending", "running"):
            return status
        await asyncio.sleep(0.05)  # the pace of polling
    raise AssertionError(f"run {run_id} did not end")


async def assistants(client):
    found = await client.assistants.search(limit=100)
    echo = next(one for one in found if one["graph_id"] == "echo")
    assert await client.assistants.get(echo["assistant_id"]) == echo
    assert [one["assistant_id"] for one in await client.assistants.search(graph_id="echo")] == \
        [echo["assistant_id"]]


async def threads(client):
    mark = uuid.uuid4().hex
    thread = await client.threads.create(metadata={"mark": mark})
    assert thread["status"] == "idle"
    assert (await client.threads.get(thread["thread_id"]))["metadata"]["mark"] == mark
    found = await client.threads.search(metadata={"mark": mark})
    assert [one["thread_id"] for one in found] == [thread["thread_id"]]
    await client.threads.delete(thread["thread_id"])
    await refused(client.threads.get(thread["thread_id"]), 404)


async def wait_state_history(client):
    thread_id = (await client.threads.create())["thread_id"]
    first = await client.runs.wait(thread_id, "echo", input=user("one"))
    assert texts(first) == ["one", "one"]
    second = await client.runs.wait(thread_id, "echo", input=user("two"))
    assert texts(second) == ["one", "one", "two", "two"]
    state = await client.threads.get_state(thread_id)
    assert state["values"] == second and list(state["next"]) == []
    history = await client.threads.get_history(thread_id, limit=100)
    assert history[0]["checkpoint"] == state["checkpoint"]
    for newer, older in zip(history, history[1:]):
        assert newer["parent_checkpoint"]["checkpoint_id"] == older["checkpoint"]["checkpoint_id"]
    assert history[-1]["parent_checkpoint"] is None
    before = await client.threads.get_state(thread_id, checkpoint=history[1]["checkpoint"])
    assert before["checkpoint"]["checkpoint_id"] == history[1]["checkpoint"]["checkpoint_id"]
    alone = await client.runs.wait(None, "echo", input=user("alone"))
    assert texts(alone) == ["alone", "alone"]


async def stream(client):
    thread_id = (await client.threads.create())["thread_id"]
    created = []
    events = [event async for event in client.runs.stream(
        thread_id, "wordy", input=user("tell me"), stream_mode=MODES,
        on_run_created=created.append)]
    assert events[0].event == "metadata"
    assert created[0]["run_id"] == events[0].data["run_id"]
    values = [event.data for event in events if event.event == "values"]
    updates = [event.data for event in events if event.event == "updates"]
    pieces = [event.data[0]["content"] for event in events if event.event == "messages"]
    assert len(values[-1]["messages"]) == 2 and list(updates[0]) == ["assistant"]
    assert len(pieces) > 20 and "".join(pieces) == texts(values[-1])[1]
    assert not [event for event in events if event.event == "error"]


async def background(client):
    thread_id = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread_id, "wordy", input=user("later"), stream_mode=MODES,
                                   stream_resumable=True)
    assert [one["run_id"] for one in await client.runs.list(thread_id)] == [run["run_id"]]
    everything = [event async for event in client.runs.join_stream(
        thread_id, run["run_id"], stream_mode=MODES, last_event_id="-1")]
    values = await client.runs.join(thread_id, run["run_id"])
    assert [one.data for one in everything if one.event == "values"][-1] == values
    assert await settled(client, thread_id, run["run_id"]) == "success"
    middle = len(everything) // 2
    rest = [event async for event in client.runs.join_stream(
        thread_id, run["run_id"], stream_mode=MODES, last_event_id=everything[middle].id)]
    assert [one.id for one in rest] == [one.id for one in everything[middle + 1:]]


async def cancel_and_multitask(client):
    thread_id = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread_id, "long", input=user("never"))
    await refused(client.runs.create(thread_id, "long", input=user("no"),
                                     multitask_strategy="reject"), 409)
    queued = await client.runs.create(thread_id, "echo", input=user("queued"))
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    assert await settled(client, thread_id, run["run_id"]) == "interrupted"
    assert await settled(client, thread_id, queued["run_id"]) == "success"
    await refused(client.runs.wait(thread_id, "nobody", input=user("x")), 404)
    await refused(client.runs.wait(str(uuid.uuid4()), "echo", input=user("x")), 404)


def synchronous(url):
    with_sync = get_sync_client(url=url)
    thread_id = with_sync.threads.create()["thread_id"]
    assert texts(with_sync.runs.wait(thread_id, "echo", input=user("sync"))) == ["sync", "sync"]
    events = list(with_sync.runs.stream(thread_id, "echo", input=user("more")))
    assert texts(events[-1].data)[-1] == "more"


async def main(url):
    client = get_client(url=url)
    for part in (assistants, threads, wait_state_history, stream, background,
                 cancel_and_multitask):
        await part(client)
        print(f"ok {part.__name__}", flush=True)


asyncio.run(main(sys.argv[1]))
synchronous(sys.argv[1])
print("ok synchronous")
