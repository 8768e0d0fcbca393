"""Every route of the HTTP API, through nginx and two engines: shapes, headers, streams, errors."""

import json
import uuid

from api_client import (ASSISTANT_NAMESPACE, FINAL, UUID, assistant_id, check_chain,
                        eventually, is_error, run_of, text_of)
from api_server import api_test, server  # noqa: F401  # a fixture is used by its name

CHUNK_TYPES = ("AIMessageChunk", "ai")


# ---- system


@api_test
async def test_ok_and_info(api):
    ok = await api.get("/ok")
    assert ok.json == {"ok": True}
    assert ok.headers["content-type"].startswith("application/json")
    info = (await api.get("/info")).json
    assert isinstance(info["version"], str) and info["version"]
    assert info["flags"]["assistants"] is True
    metrics = await api.metrics()
    assert metrics["heddle_scheduler_runs_accepted_total"] >= 0


@api_test
async def test_unknown_route_and_wrong_method_are_json_errors(api):
    is_error(await api.get("/nowhere", want=404), "not_found")
    is_error(await api.get("/threads/x/y/z/q", want=404), "not_found")
    is_error(await api.call("PUT", "/threads", {}, want=405), "method_not_allowed")
    is_error(await api.call("DELETE", "/ok", want=405), "method_not_allowed")


# ---- assistants


@api_test
async def test_assistants_search_finds_each_graph_once(api):
    found = await api.post("/assistants/search", {})
    by_graph = {one["graph_id"]: one for one in found.json}
    assert {"echo", "chain5", "slow", "wordy"} <= set(by_graph)
    assert len(by_graph) == len(found.json)
    for graph, one in by_graph.items():
        assert one["assistant_id"] == assistant_id(graph)
        assert one["metadata"]["created_by"] == "system"
        assert {"config", "context", "created_at", "updated_at", "version", "name",
                "description"} <= set(one)
    assert int(found.headers["x-pagination-total"]) == len(found.json)


@api_test
async def test_assistants_search_filters_and_pages(api):
    everything = (await api.post("/assistants/search", {})).json
    one = (await api.post("/assistants/search", {"graph_id": "echo"})).json
    assert [item["graph_id"] for item in one] == ["echo"]
    none = (await api.post("/assistants/search", {"graph_id": "no_such_graph"})).json
    assert none == []
    pages = []
    for offset in range(len(everything)):
        page = await api.post("/assistants/search", {"limit": 1, "offset": offset})
        assert int(page.headers["x-pagination-total"]) == len(everything)
        assert ("x-pagination-next" in page.headers) == (offset + 1 < len(everything))
        pages += page.json
    assert [item["assistant_id"] for item in pages] == \
        [item["assistant_id"] for item in everything]
    is_error(await api.post("/assistants/search", {"limit": 0}, want=422), field="limit")
    is_error(await api.post("/assistants/search", {"limit": 1001}, want=422), field="limit")


@api_test
async def test_assistant_get_by_id_and_by_graph_name(api):
    by_name = (await api.get("/assistants/echo")).json
    by_id = (await api.get(f"/assistants/{uuid.uuid5(ASSISTANT_NAMESPACE, 'echo')}")).json
    assert by_name == by_id and by_name["graph_id"] == "echo"
    is_error(await api.get("/assistants/nobody", want=404), "not_found")
    is_error(await api.get(f"/assistants/{uuid.uuid4()}", want=404), "not_found")


# ---- threads


@api_test
async def test_thread_create_get_delete(api):
    created = (await api.post("/threads", {"metadata": {"user": "ann"}})).json
    assert UUID.match(created["thread_id"])
    assert created["status"] == "idle" and created["metadata"]["user"] == "ann"
    assert {"created_at", "updated_at", "values", "interrupts"} <= set(created)
    assert (await api.get(f"/threads/{created['thread_id']}")).json == created
    await api.call("DELETE", f"/threads/{created['thread_id']}", want=(200, 204))
    is_error(await api.get(f"/threads/{created['thread_id']}", want=404), "not_found")
    is_error(await api.call("DELETE", f"/threads/{created['thread_id']}", want=404), "not_found")
    is_error(await api.get(f"/threads/{created['thread_id']}/state", want=404), "not_found")


@api_test
async def test_thread_create_with_own_id_and_if_exists(api):
    own = str(uuid.uuid4())
    first = (await api.post("/threads", {"thread_id": own, "metadata": {"n": 1}})).json
    assert first["thread_id"] == own
    is_error(await api.post("/threads", {"thread_id": own}, want=409), "conflict")
    is_error(await api.post("/threads", {"thread_id": own, "if_exists": "raise"}, want=409),
             "conflict")
    again = (await api.post("/threads", {"thread_id": own, "if_exists": "do_nothing",
                                         "metadata": {"n": 2}})).json
    assert again["metadata"]["n"] == 1
    is_error(await api.post("/threads", {"thread_id": "not-a-uuid"}, want=422), field="thread_id")


@api_test
async def test_thread_search_filters_sorts_and_pages(api):
    tag = uuid.uuid4().hex
    ids = [await api.new_thread(metadata={"tag": tag, "n": n, "even": n % 2 == 0})
           for n in range(5)]
    found = await api.post("/threads/search", {"metadata": {"tag": tag}})
    assert [one["thread_id"] for one in found.json] == ids[::-1], "newest first by default"
    even = (await api.post("/threads/search", {"metadata": {"tag": tag, "even": True}})).json
    assert {one["thread_id"] for one in even} == set(ids[::2])
    ascending = (await api.post("/threads/search", {
        "metadata": {"tag": tag}, "sort_by": "created_at", "sort_order": "asc"})).json
    assert [one["thread_id"] for one in ascending] == ids
    some = (await api.post("/threads/search", {"ids": ids[1:3]})).json
    assert {one["thread_id"] for one in some} == set(ids[1:3])
    assert (await api.post("/threads/search", {"metadata": {"tag": tag},
                                               "status": "busy"})).json == []
    seen = []
    for offset in (0, 2, 4):
        page = await api.post("/threads/search", {"metadata": {"tag": tag}, "limit": 2,
                                                  "offset": offset})
        assert int(page.headers["x-pagination-total"]) == 5
        if offset < 4:
            assert int(page.headers["x-pagination-next"]) == offset + 2
        else:
            assert "x-pagination-next" not in page.headers
        seen += [one["thread_id"] for one in page.json]
    assert seen == ids[::-1]


# ---- state and history


@api_test
async def test_state_of_an_empty_thread(api):
    thread = await api.new_thread()
    state = (await api.get(f"/threads/{thread}/state")).json
    assert state["next"] == [] and state["tasks"] == []
    assert not state["values"] or state["values"] == {"messages": []}
    assert state["checkpoint"] is None and state["parent_checkpoint"] is None
    assert state["created_at"] is None
    assert (await api.get(f"/threads/{thread}/history")).json == []
    is_error(await api.get(f"/threads/{uuid.uuid4()}/state", want=404), "not_found")
    is_error(await api.get(f"/threads/{uuid.uuid4()}/history", want=404), "not_found")


@api_test
async def test_state_and_history_after_two_turns(api):
    thread = await api.new_thread()
    for text in ("one", "two"):
        await api.post(f"/threads/{thread}/runs/wait", run_of("echo", text))
    state = (await api.get(f"/threads/{thread}/state")).json
    messages = state["values"]["messages"]
    assert [message["type"] for message in messages] == ["human", "ai", "human", "ai"]
    assert [text_of(message) for message in messages][::2] == ["one", "two"]
    assert len({message["id"] for message in messages}) == 4
    assert state["next"] == []
    assert state["checkpoint"]["thread_id"] == thread
    assert state["metadata"]["source"] == "loop"

    history = (await api.get(f"/threads/{thread}/history?limit=100")).json
    assert history[0]["checkpoint"] == state["checkpoint"]
    check_chain(history)
    assert [entry["metadata"]["step"] for entry in history] == \
        list(range(len(history) - 2, -2, -1)), "LangGraph counts from -1, by one"
    sources = [entry["metadata"]["source"] for entry in history]
    assert sources.count("input") == 2 and set(sources) == {"input", "loop"}
    posted = (await api.post(f"/threads/{thread}/history", {"limit": 100})).json
    assert posted == history
    default = (await api.get(f"/threads/{thread}/history")).json
    assert default == history[:10]


@api_test
async def test_history_pages_and_state_at_a_checkpoint(api):
    thread = await api.new_thread()
    await api.post(f"/threads/{thread}/runs/wait", run_of("chain5", "go"))
    whole = (await api.get(f"/threads/{thread}/history?limit=100")).json
    assert len(whole) == 7, "input, the input applied, five nodes"
    paged = []
    while True:
        body = {"limit": 3}
        if paged:
            body["before"] = paged[-1]["checkpoint"]["checkpoint_id"]
        page = (await api.post(f"/threads/{thread}/history", body)).json
        if not page:
            break
        assert len(page) <= 3
        paged += page
    assert paged == whole
    for entry in whole:
        checkpoint = entry["checkpoint"]
        at = (await api.get(f"/threads/{thread}/state/{checkpoint['checkpoint_id']}")).json
        assert at["values"] == entry["values"] and at["next"] == entry["next"]
        posted = (await api.post(f"/threads/{thread}/state/checkpoint",
                                 {"checkpoint": checkpoint})).json
        assert posted == at
    counts = [len(entry["values"].get("messages", [])) for entry in whole]
    assert counts == [6, 5, 4, 3, 2, 1, 0], "each superstep adds one message"
    is_error(await api.get(f"/threads/{thread}/state/{uuid.uuid4()}", want=404), "not_found")


# ---- runs


@api_test
async def test_run_create_get_list_join_delete(api):
    thread = await api.new_thread()
    created = await api.post(f"/threads/{thread}/runs",
                             run_of("echo", "hello", metadata={"colour": "red"}))
    made = created.json
    assert UUID.match(made["run_id"]) and made["thread_id"] == thread
    assert made["assistant_id"] == assistant_id("echo")
    assert made["metadata"]["colour"] == "red"
    assert made["multitask_strategy"] == "enqueue"
    assert {"created_at", "updated_at", "status", "kwargs"} <= set(made)
    assert created.headers["content-location"] == f"/threads/{thread}/runs/{made['run_id']}"

    joined = (await api.get(f"/threads/{thread}/runs/{made['run_id']}/join")).json
    assert [text_of(message) for message in joined["messages"]][0] == "hello"
    assert len(joined["messages"]) == 2
    got = (await api.get(f"/threads/{thread}/runs/{made['run_id']}")).json
    assert got["status"] == "success" and got["created_at"] == made["created_at"]
    listed = (await api.get(f"/threads/{thread}/runs")).json
    assert listed == [{**got, "updated_at": listed[0]["updated_at"]}]

    await api.call("DELETE", f"/threads/{thread}/runs/{made['run_id']}", want=(200, 204))
    is_error(await api.get(f"/threads/{thread}/runs/{made['run_id']}", want=404), "not_found")
    assert (await api.get(f"/threads/{thread}/runs")).json == []


@api_test
async def test_runs_list_pages_newest_first(api):
    thread = await api.new_thread()
    ids = []
    for n in range(5):
        made = (await api.post(f"/threads/{thread}/runs", run_of("echo", str(n)))).json
        ids.append(made["run_id"])
    for run_id in ids:
        assert await api.wait_run(thread, run_id) == "success"
    async def listed(query):
        return [one["run_id"] for one in (await api.get(f"/threads/{thread}/runs{query}")).json]
    assert await listed("") == ids[::-1]
    assert await listed("?limit=2&offset=0") == ids[:2:-1]
    assert await listed("?limit=2&offset=1") == ids[3:1:-1], "two rows, also with an offset"
    assert await listed("?limit=10&offset=4") == ids[:1]
    assert await listed("?status=success&limit=3") == ids[:1:-1]
    assert await listed("?status=error") == []


@api_test
async def test_unknown_thread_and_run(api):
    nobody, thread = uuid.uuid4(), await api.new_thread()
    body = run_of("echo", "x")
    for route in ("runs", "runs/wait", "runs/stream"):
        is_error(await api.post(f"/threads/{nobody}/{route}", body, want=404), "not_found")
        is_error(await api.post(f"/threads/{nobody}/{route}",
                                {**body, "if_not_exists": "reject"}, want=404), "not_found")
    for route in ("", "/join", "/stream"):
        is_error(await api.get(f"/threads/{thread}/runs/{uuid.uuid4()}{route}", want=404),
                 "not_found")
    is_error(await api.post(f"/threads/{thread}/runs/{uuid.uuid4()}/cancel", want=404),
             "not_found")
    is_error(await api.get(f"/threads/{nobody}/runs", want=404), "not_found")


@api_test
async def test_if_not_exists_create_makes_the_thread(api):
    thread = str(uuid.uuid4())
    values = (await api.post(f"/threads/{thread}/runs/wait",
                             run_of("echo", "hi", if_not_exists="create"))).json
    assert len(values["messages"]) == 2
    assert (await api.get(f"/threads/{thread}")).json["status"] == "idle"


@api_test
async def test_wait_returns_the_values_and_names_the_run(api):
    thread = await api.new_thread()
    answer = await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "hello there"))
    assert answer.headers["content-type"].startswith("application/json")
    prefix, run_id = answer.headers["content-location"].rsplit("/", 1)
    assert prefix == f"/threads/{thread}/runs"
    assert await api.run_status(thread, run_id) == "success"
    values = answer.json
    assert [message["type"] for message in values["messages"]] == ["human", "ai"]
    assert "hello there" in text_of(values["messages"][1])


@api_test
async def test_wait_keeps_the_connection_alive_with_newlines(api):
    """The model takes 3.5 s, a keep-alive comes every 3 s: one stands before the JSON. An engine
    that stands still then has the answer first, which happens once."""
    for _ in range(3):
        thread = await api.new_thread()
        answer = await api.post(f"/threads/{thread}/runs/wait", run_of("sluggish", "hi"))
        if answer.body.startswith(b"\n"):
            break
    assert answer.body.startswith(b"\n"), answer.body[:80]
    assert answer.body.lstrip(b"\n").startswith(b"{")
    assert len(answer.json["messages"]) == 2


@api_test
async def test_stateless_wait_stream_and_create(api):
    answer = await api.post("/runs/wait", run_of("echo", "hi"))
    assert len(answer.json["messages"]) == 2
    run_id = answer.headers["content-location"].rsplit("/", 1)[1]
    assert UUID.match(run_id)

    events = await api.stream("POST", "/runs/stream",
                              run_of("echo", "hi", stream_mode=["values"]))
    assert events[0].name == "metadata"
    assert len(events[-1].data["messages"]) == 2

    made = await api.post("/runs", run_of("echo", "hi", on_completion="keep"))
    thread, run_id = made.json["thread_id"], made.json["run_id"]
    assert await api.wait_run(thread, run_id) == "success"
    assert len(await api.thread_messages(thread)) == 2


@api_test
async def test_a_stateless_thread_is_deleted_unless_kept(api):
    made = (await api.post("/runs", run_of("echo", "hi"))).json
    async def gone():
        return (await api.get(f"/threads/{made['thread_id']}", want=None)).status == 404
    await eventually(gone, "the temporary thread is deleted")


@api_test
async def test_reject_refuses_while_a_run_is_there_and_enqueue_waits(api):
    thread = await api.new_thread()
    first = (await api.post(f"/threads/{thread}/runs", run_of("sluggish", "a"))).json["run_id"]
    for route in ("runs", "runs/wait", "runs/stream"):
        is_error(await api.post(f"/threads/{thread}/{route}",
                                run_of("slow", "b", multitask_strategy="reject"), want=409),
                 "thread_busy")
    assert (await api.get(f"/threads/{thread}")).json["status"] == "busy"
    second = (await api.post(f"/threads/{thread}/runs", run_of("slow", "c"))).json["run_id"]
    assert await api.run_status(thread, second) == "pending"
    assert await api.wait_run(thread, first) == "success"
    assert await api.wait_run(thread, second) == "success"
    assert (await api.get(f"/threads/{thread}")).json["status"] == "idle"
    texts = [text_of(message) for message in await api.thread_messages(thread)]
    assert texts[::2] == ["a", "c"]
    done = (await api.post(f"/threads/{thread}/runs/wait",
                           run_of("slow", "d", multitask_strategy="reject"))).json
    assert len(done["messages"]) == 6


# ---- /chat


@api_test
async def test_chat_starts_and_continues_a_thread(api):
    first = (await api.post("/chat", {"agent": "echo", "message": "good morning"})).json
    assert UUID.match(first["thread_id"]) and "good morning" in first["reply"]
    second = (await api.post("/chat", {"agent": "echo", "message": "again",
                                       "thread_id": first["thread_id"]})).json
    assert second["thread_id"] == first["thread_id"] and "again" in second["reply"]
    assert len(await api.thread_messages(first["thread_id"])) == 4
    is_error(await api.post("/chat", {"agent": "nobody", "message": "x"}, want=404), "not_found")
    is_error(await api.post("/chat", {"agent": "echo"}, want=422), field="message")
    is_error(await api.post("/chat", {"message": "x"}, want=422), field="agent")
    is_error(await api.post("/chat", {"agent": "echo", "message": 7}, want=422), field="message")


# ---- idempotency over engines


@api_test
async def test_runs_of_one_thread_see_one_another_from_both_workers(api):
    """Twenty turns over fresh connections: whichever worker and engine, one history."""
    thread = await api.new_thread()
    for n in range(20):
        values = (await api.post(f"/threads/{thread}/runs/wait", run_of("echo", f"turn {n}"),
                                 headers={"connection": "close"})).json
        assert len(values["messages"]) == 2 * (n + 1)
    history = (await api.get(f"/threads/{thread}/history?limit=1000")).json
    check_chain(history)


@api_test
async def test_a_failing_run_ends_as_error_and_says_why(api):
    thread = await api.new_thread()
    body = run_of("chain5", "go", config={"recursion_limit": 2})
    failed = (await api.post(f"/threads/{thread}/runs/wait", body)).json
    assert set(failed["__error__"]) >= {"error", "message"}
    assert json.dumps(failed["__error__"]).count("recursion") >= 1
    runs = (await api.get(f"/threads/{thread}/runs")).json
    assert runs[0]["status"] == "error" and runs[0]["status"] in FINAL
    assert (await api.get(f"/threads/{thread}")).json["status"] == "error"
    events = await api.stream("POST", f"/threads/{thread}/runs/stream", body)
    errors = [event.data for event in events if event.name == "error"]
    assert len(errors) == 1 and set(errors[0]) >= {"error", "message"}


@api_test
async def test_what_was_deleted_is_gone_on_every_route(api):
    """Also for an engine that still holds the ended run in memory for late joiners."""
    thread = await api.new_thread()
    made = [(await api.post(f"/threads/{thread}/runs", run_of("echo", "x"))).json["run_id"]
            for _ in range(2)]
    for run_id in made:
        assert await api.wait_run(thread, run_id) == "success"
    await api.call("DELETE", f"/threads/{thread}/runs/{made[0]}", want=(200, 204))
    for route in ("", "/join", "/stream"):
        is_error(await api.get(f"/threads/{thread}/runs/{made[0]}{route}", want=404), "not_found")
    await api.call("DELETE", f"/threads/{thread}", want=(200, 204))
    for route in ("", "/join", "/stream"):
        is_error(await api.get(f"/threads/{thread}/runs/{made[1]}{route}", want=404), "not_found")


@api_test
async def test_a_run_is_not_found_under_another_thread(api):
    thread = await api.new_thread()
    made = (await api.post(f"/threads/{thread}/runs", run_of("echo", "x"))).json["run_id"]
    assert await api.wait_run(thread, made) == "success"
    for other in [await api.new_thread() for _ in range(8)]:
        for route in ("", "/join", "/stream"):
            is_error(await api.get(f"/threads/{other}/runs/{made}{route}", want=404), "not_found")
        is_error(await api.post(f"/threads/{other}/runs/{made}/cancel", want=404), "not_found")


@api_test
async def test_a_run_may_name_the_newest_checkpoint_and_no_other(api):
    """What the SDK's useStream sends with every turn; starting from an older one would be a fork."""
    thread = await api.new_thread()
    for turn in range(3):
        history = (await api.get(f"/threads/{thread}/history")).json
        body = run_of("echo", f"turn {turn}")
        if history:
            body["checkpoint"] = history[0]["checkpoint"]
        values = (await api.post(f"/threads/{thread}/runs/wait", body)).json
        assert len(values["messages"]) == 2 * (turn + 1)
    older = history[1]["checkpoint"]
    for field, value in (("checkpoint", older), ("checkpoint_id", older["checkpoint_id"])):
        refused = await api.post(f"/threads/{thread}/runs/wait",
                                 {**run_of("echo", "fork"), field: value}, want=422)
        is_error(refused, "unsupported", field)
    assert len(await api.thread_messages(thread)) == 6
