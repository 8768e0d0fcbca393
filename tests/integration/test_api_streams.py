"""Streams of the HTTP API, through nginx and two engines: modes, ids, joins, cancel, disconnects."""

import asyncio

from api_client import eventually, run_of, text_of
from api_server import api_test, server  # noqa: F401  # a fixture is used by its name

CHUNK_TYPES = ("AIMessageChunk", "ai")


# ---- streams


@api_test
async def test_stream_modes_values_updates_and_messages(api):
    thread = await api.new_thread()
    body = run_of("wordy", "hello", stream_mode=["values", "updates", "messages-tuple"])
    async with api.open_stream("POST", f"/threads/{thread}/runs/stream", body) as (head, events):
        received = [event async for event in events]
        location = head.headers["content-location"]
        assert head.headers["location"].startswith(location)
        assert head.headers["cache-control"].startswith("no-")
    run_id = location.rsplit("/", 1)[1]
    assert location == f"/threads/{thread}/runs/{run_id}"
    check_ids(received)
    assert received[0].name == "metadata"
    assert received[0].data["run_id"] == run_id and received[0].data["attempt"] == 1
    names = [event.name for event in received]
    assert set(names) <= {"metadata", "values", "updates", "messages", "end"}
    values = [event.data for event in received if event.name == "values"]
    assert [len(one["messages"]) for one in values] == [1, 2]
    updates = [event.data for event in received if event.name == "updates"]
    assert [list(update) for update in updates] == [["assistant"]]
    chunks = [event.data for event in received if event.name == "messages"]
    assert len(chunks) > 20, "the model streams its answer in several pieces"
    for chunk, metadata in chunks:
        assert chunk["type"] in CHUNK_TYPES
        assert metadata["langgraph_node"] == "assistant"
        assert metadata["run_id"] == run_id and metadata["thread_id"] == thread
    answer = values[-1]["messages"][-1]
    pieces = [text_of(chunk) for chunk, _ in chunks if chunk["type"] == "AIMessageChunk"]
    assert "".join(pieces) == text_of(answer), "the chunks add up to the answer, once"
    assert {chunk["id"] for chunk, _ in chunks} == {answer["id"]}


def check_ids(events):
    """Every event has an id, and ids rise strictly, compared as numbers."""
    ids = [int(event.id) for event in events]
    assert all(left < right for left, right in zip(ids, ids[1:])), ids


@api_test
async def test_stream_has_only_the_modes_asked_for(api):
    thread = await api.new_thread()
    for mode, name in (("values", "values"), ("updates", "updates")):
        events = await api.stream("POST", f"/threads/{thread}/runs/stream",
                                  run_of("chain5", "go", stream_mode=mode))
        assert {event.name for event in events} - {"end"} == {"metadata", name}
    default = await api.stream("POST", f"/threads/{thread}/runs/stream", run_of("chain5", "go"))
    assert {event.name for event in default} - {"end"} == {"metadata", "values"}


@api_test
async def test_updates_come_one_for_each_node_in_order(api):
    thread = await api.new_thread()
    events = await api.stream("POST", f"/threads/{thread}/runs/stream",
                              run_of("chain5", "go", stream_mode="updates"))
    nodes = [list(event.data)[0] for event in events if event.name == "updates"]
    assert len(nodes) == 5 and len(set(nodes)) == 5


@api_test
async def test_join_after_the_end_and_from_an_id(api):
    thread = await api.new_thread()
    body = run_of("chain5", "go", stream_mode=["values", "updates"], stream_resumable=True)
    events = await api.stream("POST", f"/threads/{thread}/runs/stream", body)
    run_id = events[0].data["run_id"]
    path = f"/threads/{thread}/runs/{run_id}/stream"
    pairs = [(event.id, event.name, event.data) for event in events]
    for position in range(len(events)):
        rest = await api.stream("GET", path, headers={"last-event-id": events[position].id})
        assert [(event.id, event.name, event.data) for event in rest] == pairs[position + 1:]
    whole = await api.stream("GET", path, headers={"last-event-id": "-1"})
    assert [(event.id, event.name, event.data) for event in whole] == pairs
    only = await api.stream("GET", path + "?stream_mode=updates",
                            headers={"last-event-id": "-1"})
    assert {event.name for event in only} - {"metadata", "end"} == {"updates"}
    as_text = await api.stream("GET", path + "?stream_mode=%5B%22updates%22%5D",
                               headers={"last-event-id": "-1"})
    assert [event.id for event in as_text] == [event.id for event in only]


@api_test
async def test_two_joiners_each_get_everything(api):
    thread = await api.new_thread()
    body = run_of("wordy", "hello", stream_mode=["values", "messages-tuple"])
    made = (await api.post(f"/threads/{thread}/runs", body)).json
    path = f"/threads/{thread}/runs/{made['run_id']}/stream"
    streams = await asyncio.gather(*[
        api.stream("GET", path, headers={"last-event-id": "-1"}) for _ in range(3)])
    lists = [[(event.id, event.name, event.data) for event in stream] for stream in streams]
    assert lists[0] == lists[1] == lists[2]
    assert len([one for one in lists[0] if one[1] == "messages"]) > 20
    check_ids(streams[0])


@api_test
async def test_a_join_in_the_middle_continues_without_gap_or_repeat(api):
    thread = await api.new_thread()
    body = run_of("wordy", "hello", stream_mode=["values", "messages-tuple"],
                  stream_resumable=True, on_disconnect="continue")
    first = []
    async with api.open_stream("POST", f"/threads/{thread}/runs/stream", body) as (head, events):
        location = head.headers["location"]
        async for event in events:
            first.append(event)
            if len([one for one in first if one.name == "messages"]) == 2:
                break
    path = location if location.endswith("/stream") else location + "/stream"
    rest = await api.stream("GET", path, headers={"last-event-id": first[-1].id})
    check_ids(first + rest)
    pieces = [text_of(event.data[0]) for event in first + rest if event.name == "messages"]
    answer = [event.data for event in rest if event.name == "values"][-1]["messages"][-1]
    assert "".join(pieces) == text_of(answer)


# ---- cancelling, disconnecting, multitasking


@api_test
async def test_cancel_a_running_run(api):
    thread = await api.new_thread()
    for wait in ("1", "0"):
        made = (await api.post(f"/threads/{thread}/runs", run_of("long", "hi"))).json
        path = f"/threads/{thread}/runs/{made['run_id']}"
        await api.wait_run(thread, made["run_id"], statuses=("running",))
        answer = await api.post(f"{path}/cancel?wait={wait}&action=interrupt",
                                want=(200, 202, 204))
        if wait == "0":
            assert answer.seconds < 20, "wait=0 does not wait for the model"
        else:
            assert await api.run_status(thread, made["run_id"]) == "interrupted"
        assert await api.wait_run(thread, made["run_id"], seconds=20) == "interrupted"
    after = await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "on"), want=None)
    assert after.status in (200, 409), "the thread is of another graph: 409, else it goes on"


@api_test
async def test_cancel_a_waiting_run_leaves_the_others(api):
    thread = await api.new_thread()
    made = [(await api.post(f"/threads/{thread}/runs", run_of(agent, str(n)))).json["run_id"]
            for n, agent in enumerate(("sluggish", "slow", "slow"))]
    await api.post(f"/threads/{thread}/runs/{made[1]}/cancel?wait=0", want=(200, 202, 204))
    assert [await api.wait_run(thread, one) for one in made] == \
        ["success", "interrupted", "success"]
    texts = [text_of(message) for message in await api.thread_messages(thread)]
    assert texts[::2] == ["0", "2"]


@api_test
async def test_on_disconnect_cancel_and_continue(api):
    for route in ("stream", "wait"):
        for choice, agent, query, expected in (
                ("cancel", "long", "?status=running", "interrupted"),
                ("continue", "slow", "", "success")):
            thread = await api.new_thread()
            body = run_of(agent, "hi", on_disconnect=choice)
            task = asyncio.create_task(api.post(f"/threads/{thread}/runs/{route}", body))
            run_id = await eventually(lambda: first_run(api, thread, query), "the run is there")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await api.wait_run(thread, run_id) == expected, (route, choice)


async def first_run(api, thread, query):
    runs = (await api.get(f"/threads/{thread}/runs{query}")).json
    return runs[0]["run_id"] if runs else None
