"""Tools are never called a second time in silence: real engines that are killed while a real HTTP
server carries out what they asked for, and what each policy then makes of it."""

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import uuid

import pytest

from api_client import connect, eventually, is_error, text_of
from clusters import run
from harness import SHORT_LEASE_MS, Cluster, ModelServer, ToolServer, postgres_cluster
from stalls import lost, stop

AGENT = """\
agent: tools
description: Calls what it is told to.
models:
  main: {provider: openai, model: plain}
state:
  messages: {reducer: add_messages}
tools:
  - http: tools.openapi.yaml
    base_url: "${TOOLS_URL}"
    on_unknown: {ask_book: ask, dear_look: ask}
nodes:
  assistant: {kind: model, model: main, tools: all}
  act:       {kind: tools}
edges:
  - {from: START, to: assistant}
  - {from: assistant, to: act, when: "last(messages).tool_calls"}
  - {from: assistant, to: END}
  - {from: act, to: assistant}
"""
POST = """\
  /do/{name}:
    post:
      operationId: {name}
      summary: Changes something.
{parameters}      requestBody:
        required: true
        content:
          application/json:
            schema: {{type: object, properties: {{what: {{type: string}}}}}}
      responses: {{"200": {{description: done}}}}
"""
GET = """\
  /see/{name}:
    get:
      operationId: {name}
      summary: Reads something.
      responses: {{"200": {{description: seen}}}}
"""
KEY = """\
      parameters:
        - {name: Idempotency-Key, in: header, required: true, schema: {type: string}}
"""
OPENAPI = ("openapi: 3.0.3\ninfo: {title: Tools, version: '1'}\npaths:\n"
           + POST.format(name="once_book", parameters=KEY)
           + "".join(POST.format(name=name, parameters="")
                     for name in ("quick_book", "fail_book", "ask_book"))
           + "".join(GET.format(name=name) for name in ("look", "dear_look")))
UNKNOWN = "it is not known whether this call was carried out"


class Tools:
    """A cluster of two engines whose agent uses a tool server."""

    def __init__(self, cluster, server):
        self.cluster = cluster
        self.server = server

    @property
    def engines(self):
        return self.cluster.engines

    def owner(self):
        found = [engine for engine in self.engines
                 if engine.is_running() and engine.metrics()["heddle_scheduler_runs_running"] > 0]
        assert len(found) == 1, "one run, one engine"
        return found[0]

    def kill_owner(self):
        victim = self.owner()
        victim.kill9()
        return victim

    def total(self, metric):
        return sum(engine.metrics()[metric] for engine in self.engines if engine.is_running())

    def rows(self, condition="1 = 1"):
        """Rows of the ledger, over all threads, straight from the database."""
        if self.cluster.store_url.startswith("sqlite:"):
            with contextlib.closing(sqlite3.connect(self.cluster.store_url[7:])) as database:
                return database.execute(
                    f"SELECT count(*) FROM tool_calls WHERE {condition}").fetchone()[0]
        name = re.search(r"/(test_\w+)", self.cluster.store_url)[1]
        return int(postgres_cluster().ask(
            f"SELECT count(*) FROM heddle.tool_calls WHERE {condition}", database=name))


@pytest.fixture(params=["sqlite", "postgres"])
def tools(request, tmp_path):
    agents = tmp_path / "agents"
    (agents / "tools").mkdir(parents=True)
    (agents / "tools" / "agent.yaml").write_text(AGENT)
    (agents / "tools" / "tools.openapi.yaml").write_text(OPENAPI)
    server = ToolServer(tmp_path)
    server.start()
    model = ModelServer(tmp_path)
    model.start()
    try:
        with Cluster(tmp_path, agents=agents, model=model, engines=2, store=request.param,
                     lease_ms=SHORT_LEASE_MS, environment={"TOOLS_URL": server.url}) as cluster:
            yield Tools(cluster, server)
            cluster.check_clean()
    finally:
        server.stop()


def request_of(text, **fields):
    return {"assistant_id": "tools", "input": {"messages": [{"role": "user", "content": text}]},
            **fields}


def resume(value):
    return {"assistant_id": "tools", "command": {"resume": value}}


async def called(tools, name, times=1):
    async def arrived():
        return len(tools.server.calls(name)) >= times
    await eventually(arrived, f"{name} has been called {times} times")
    calls = tools.server.calls(name)
    assert len(calls) == times or lost(*tools.engines), calls
    return calls


async def recorded(tools, answers):
    async def on_disk():
        return tools.rows("length(answer) > 0") >= answers
    await eventually(on_disk, f"{answers} answers are on disk")


async def die_in_call(api, tools, thread, name, what="x", **fields):
    """Begins a run that calls `name`, kills its engine before the answer; the run's answer follows."""
    tools.server.hold(name)
    before = len(tools.server.calls(name))
    waiting = asyncio.create_task(api.post(
        f"/threads/{thread}/runs/wait", request_of(f'call {name} {{"what": "{what}"}}', **fields)))
    await called(tools, name, before + 1)
    victim = tools.kill_owner()
    tools.server.release()
    return waiting, victim


def answers_of(values):
    return [message for message in values["messages"] if message["type"] == "tool"]


def last_text(values):
    return text_of(values["messages"][-1])


async def interrupts_of(api, thread):
    """What a thread that was interrupted asks, seen from all sides."""
    row = (await api.get(f"/threads/{thread}")).json
    assert row["status"] == "interrupted"
    state = (await api.get(f"/threads/{thread}/state")).json
    assert state["next"] == ["act"]
    (task,) = state["tasks"]
    assert row["interrupts"] == {task["id"]: task["interrupts"]}
    assert state["interrupts"] == task["interrupts"]
    history = (await api.get(f"/threads/{thread}/history")).json
    assert history[0]["tasks"] == state["tasks"]
    assert all(task["interrupts"] == [] for older in history[1:] for task in older["tasks"])
    return task["interrupts"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_tool_that_honours_the_key_is_called_again_with_it(tools, durability):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            waiting, victim = await die_in_call(api, tools, thread, "once_book",
                                                durability=durability)
            values = (await waiting).json
            calls = await called(tools, "once_book", 2)
            assert len({call["key"] for call in calls}) == 1 and uuid.UUID(calls[0]["key"])
            assert calls[-1]["args"] == {"what": "x"}, "the header is no argument"
            (answer,) = answers_of(values)
            assert '"time": 1' in answer["content"], "done once"
            assert answer["status"] == "success"
            assert tools.total("heddle_tools_calls_unknown_total") == 1 or lost(*tools.engines)
            assert tools.rows() == 0
            victim.start()

            # The next call, and the same call of another thread, are others.
            await api.post(f"/threads/{thread}/runs/wait", request_of('call once_book {"what": "x"}'))
            other = await api.new_thread()
            await api.post(f"/threads/{other}/runs/wait", request_of('call once_book {"what": "x"}'))
            assert len({call["key"] for call in tools.server.calls("once_book")}) == 3
    run(body(), seconds=90)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_any_other_tool_is_not_called_again_and_the_model_is_told(tools, durability):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            waiting, victim = await die_in_call(api, tools, thread, "fail_book",
                                                durability=durability)
            values = (await waiting).json
            assert len(tools.server.calls("fail_book")) == 1
            (answer,) = answers_of(values)
            assert answer["status"] == "error" and UNKNOWN in answer["content"]
            assert UNKNOWN in last_text(values), "the model has read it"
            assert (await api.get(f"/threads/{thread}")).json["status"] == "idle"
            assert tools.rows() == 0
            victim.start()
    run(body(), seconds=90)


@pytest.mark.parametrize("decision,made,content", [
    ({"action": "retry"}, 2, '"time": 2'),
    ({"action": "fail"}, 1, UNKNOWN),
    ({"action": "result", "content": "booked by hand"}, 1, "booked by hand"),
])
def test_ask_interrupts_the_run_until_somebody_decides(tools, decision, made, content):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            waiting, victim = await die_in_call(api, tools, thread, "ask_book")
            values = (await waiting).json
            (asked,) = values["__interrupt__"]
            assert re.fullmatch("[0-9a-f]{32}", asked["id"])
            assert asked["value"]["type"] == "tool_outcome_unknown"
            assert asked["value"]["tool"] == "ask_book"
            assert asked["value"]["args"] == {"what": "x"}
            assert asked["value"]["actions"] == ["retry", "fail", "result"]
            assert await interrupts_of(api, thread) == [asked]
            (ended,) = (await api.get(f"/threads/{thread}/runs")).json
            assert ended["status"] == "interrupted"
            joined = (await api.get(f"/threads/{thread}/runs/{ended['run_id']}/join")).json
            assert joined == values
            victim.start()

            path = f"/threads/{thread}/runs/wait"
            is_error(await api.post(path, resume("go on"), want=422), "invalid_argument",
                     "command.resume")
            is_error(await api.post(path, resume({"action": "guess"}), want=422),
                     "invalid_argument", "command.resume.action")
            is_error(await api.post(path, resume({"f" * 32: decision}), want=422),
                     "invalid_argument", "command.resume")
            is_error(await api.post(path, {**request_of("x"), "command": {"resume": decision}},
                                    want=422), "invalid_argument", "command")
            is_error(await api.post(path, {"assistant_id": "tools", "command": {"goto": "act"}},
                                    want=422), "unsupported", "command.goto")
            is_error(await api.post(path, {"assistant_id": "tools", "command": {"update": {"x": 1}}},
                                    want=422), "unsupported", "command.update")
            assert len(tools.server.calls("ask_book")) == 1
            assert await interrupts_of(api, thread) == [asked], "still asked"
            assert tools.rows() == 1

            values = (await api.post(path, resume(decision))).json
            assert "__interrupt__" not in values
            (answer,) = answers_of(values)
            assert content in answer["content"]
            assert answer["status"] == ("error" if decision["action"] == "fail" else "success")
            calls = tools.server.calls("ask_book")
            assert len(calls) == made and len({call["key"] for call in calls}) == 1
            row = (await api.get(f"/threads/{thread}")).json
            assert (row["status"], row["interrupts"]) == ("idle", {})
            assert tools.rows() == 0
            is_error(await api.post(path, resume(decision), want=422), "invalid_argument",
                     "command.resume")
            statuses = [one["status"] for one in (await api.get(f"/threads/{thread}/runs")).json]
            assert statuses == ["success", "interrupted"]
    run(body(), seconds=90)


def test_a_stream_tells_of_the_interrupt_and_is_resumed_by_its_id(tools):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            tools.server.hold("ask_book")
            asking = request_of("call ask_book {}", stream_mode=["updates", "values"])
            streaming = asyncio.create_task(
                api.stream("POST", f"/threads/{thread}/runs/stream", asking))
            await called(tools, "ask_book")
            victim = tools.kill_owner()
            events = await streaming
            told = [(event.name, event.data["__interrupt__"]) for event in events
                    if "__interrupt__" in event.data]
            asked = await interrupts_of(api, thread)
            assert told == [("updates", asked), ("values", asked)]
            assert "error" not in [event.name for event in events]
            ids = [int(event.id) for event in events]
            assert ids == sorted(set(ids))
            # Who comes later, to engines that know the run from the store alone, is told the same.
            victim.start()
            for engine in tools.cluster.engines:
                engine.kill9()
                engine.start()
            (run_id,) = [one["run_id"] for one in (await api.get(f"/threads/{thread}/runs")).json]
            path = f"/threads/{thread}/runs/{run_id}/stream"
            again = await api.stream("GET", path)
            assert [(one.id, one.name, one.data) for one in again if "__interrupt__" in one.data] == \
                [(one.id, one.name, one.data) for one in events if "__interrupt__" in one.data]
            for place, event in enumerate(events):
                rest = await api.stream("GET", path, headers={"last-event-id": event.id})
                assert [one.id for one in rest if "__interrupt__" in one.data] == \
                    [one.id for one in events[place + 1:] if "__interrupt__" in one.data]
            tools.server.release()

            answer = {**resume({asked[0]["id"]: {"action": "retry"}}),
                      "stream_mode": ["updates", "values"]}
            events = await api.stream("POST", f"/threads/{thread}/runs/stream", answer)
            steps = [name for event in events if event.name == "updates" for name in event.data]
            assert steps == ["act", "assistant"]
            await called(tools, "ask_book", 2)
    run(body(), seconds=90)


def test_who_decided_to_retry_is_asked_again_when_that_dies_too(tools):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            waiting, victim = await die_in_call(api, tools, thread, "ask_book")
            (first,) = (await waiting).json["__interrupt__"]
            victim.start()
            path = f"/threads/{thread}/runs/wait"
            tools.server.hold("ask_book")
            headers = {"idempotency-key": "second try"}
            waiting = asyncio.create_task(
                api.post(path, resume({"action": "retry"}), headers=headers))
            await called(tools, "ask_book", 2)
            victim = tools.kill_owner()
            values = (await waiting).json
            (second,) = values["__interrupt__"]
            assert second["id"] != first["id"]
            assert second["value"] == first["value"]
            assert len(tools.server.calls("ask_book")) == 2, "never a silent call"
            tools.server.release()
            victim.start()

            # The request that is repeated joins its run; the old question is no longer asked.
            again = await api.post(path, resume({"action": "retry"}), headers=headers)
            assert again.json["__interrupt__"] == [second]
            is_error(await api.post(path, resume({first["id"]: {"action": "retry"}}), want=422),
                     field="command.resume")
            assert len(tools.server.calls("ask_book")) == 2
            values = (await api.post(path, resume({second["id"]: {"action": "retry"}}))).json
            assert '"time": 3' in answers_of(values)[0]["content"]
            keys = {call["key"] for call in await called(tools, "ask_book", 3)}
            assert len(keys) == 1
    run(body(), seconds=120)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_an_answer_on_record_is_never_asked_for_again(tools, durability):
    """Two calls in one step: the answer of one is on disk when the engine dies in the other."""
    async def body():
        async with connect(tools.cluster.url) as api:
            for slow, made in (("once_book", 2), ("fail_book", 1)):
                thread = await api.new_thread()
                quick = len(tools.server.calls("quick_book"))
                tools.server.hold(slow)
                text = f'calls [{{"name": "quick_book"}}, {{"name": "{slow}"}}]'
                waiting = asyncio.create_task(api.post(
                    f"/threads/{thread}/runs/wait", request_of(text, durability=durability)))
                await called(tools, slow)
                await recorded(tools, 1)
                assert tools.rows() == 2, "both were on record before the first was made"
                victim = tools.kill_owner()
                tools.server.release()
                first, second = answers_of((await waiting).json)
                assert len(tools.server.calls("quick_book")) == quick + 1, "its answer was reused"
                assert first["status"] == "success" and '"did": "quick_book"' in first["content"]
                assert len(tools.server.calls(slow)) == made
                assert second["status"] == ("success" if made == 2 else "error")
                assert tools.rows() == 0
                victim.start()
    run(body(), seconds=120)


def test_several_questions_are_answered_by_their_ids(tools):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            tools.server.hold("ask_book", "dear_look")
            text = 'calls [{"name": "ask_book"}, {"name": "look"}, {"name": "dear_look"}]'
            waiting = asyncio.create_task(
                api.post(f"/threads/{thread}/runs/wait", request_of(text)))
            await called(tools, "ask_book")
            await called(tools, "dear_look")
            assert tools.server.calls("dear_look")[0]["key"], "recorded because the agent says so"
            assert tools.server.calls("look")[0]["key"] is None
            assert tools.rows() == 2
            victim = tools.kill_owner()
            tools.server.release()
            await waiting
            asked = await interrupts_of(api, thread)
            assert [one["value"]["tool"] for one in asked] == ["ask_book", "dear_look"]
            victim.start()
            path = f"/threads/{thread}/runs/wait"
            is_error(await api.post(path, resume({"action": "retry"}), want=422),
                     "invalid_argument", "command.resume")

            # One of them first: it is done, and only the other is asked for.
            values = (await api.post(path, resume({asked[0]["id"]: {"action": "retry"}}))).json
            assert values["__interrupt__"] == asked[1:]
            assert len(tools.server.calls("ask_book")) == 2
            last = {asked[1]["id"]: {"action": "result", "content": "seen by hand"}}
            values = (await api.post(path, resume(last))).json
            answers = answers_of(values)
            assert '"time": 2' in answers[0]["content"]
            assert '"saw": "look"' in answers[1]["content"]
            assert answers[2]["content"] == "seen by hand"
            assert len(tools.server.calls("ask_book")) == 2
            assert len(tools.server.calls("dear_look")) == 1
            assert tools.rows() == 0
    run(body(), seconds=90)


def test_what_only_reads_is_not_recorded_and_simply_done_again(tools):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            tools.server.hold("look")
            waiting = asyncio.create_task(
                api.post(f"/threads/{thread}/runs/wait", request_of("call look {}")))
            await called(tools, "look")
            assert tools.rows() == 0
            victim = tools.kill_owner()
            tools.server.release()
            (answer,) = answers_of((await waiting).json)
            assert answer["status"] == "success"
            await called(tools, "look", 2)
            victim.start()
    run(body(), seconds=90)


def test_a_stalled_engine_records_nothing_when_it_wakes_up(tools):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            tools.server.hold("ask_book")
            waiting = asyncio.create_task(
                api.post(f"/threads/{thread}/runs/wait", request_of("call ask_book {}")))
            await called(tools, "ask_book")
            stalled = tools.owner()
            stop(tools.cluster, stalled)
            try:
                (asked,) = (await waiting).json["__interrupt__"]
            finally:
                os.kill(stalled.pid, signal.SIGCONT)
            tools.server.release()  # the first engine gets its answer now

            async def awake():
                return stalled.metrics()["heddle_scheduler_runs_running"] == 0
            await eventually(awake, "the stalled engine has given its run up")
            assert await interrupts_of(api, thread) == [asked]
            assert tools.rows("length(answer) > 0") == 0
            values = (await api.post(f"/threads/{thread}/runs/wait",
                                     resume({"action": "result", "content": "by hand"}))).json
            assert answers_of(values)[0]["content"] == "by hand"
            assert len(tools.server.calls("ask_book")) == 1
    run(body(), seconds=90)


HOLD = """
CREATE TABLE heddle.hold (one int);
INSERT INTO heddle.hold VALUES (1);
CREATE FUNCTION heddle.hold() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  WHILE EXISTS (SELECT 1 FROM heddle.hold) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NEW; END$$;
CREATE TRIGGER hold BEFORE INSERT ON heddle.tool_calls FOR EACH ROW EXECUTE FUNCTION heddle.hold();
"""


def test_an_engine_that_is_stopped_before_its_call_makes_none_when_it_wakes_up(tools):
    """Stopped while its record is on its way to the disk, others decide what became of the call."""
    if tools.cluster.store_url.startswith("sqlite:"):
        return  # nothing of a SQLite write can be held up from outside
    database = re.search(r"/(test_\w+)", tools.cluster.store_url)[1]

    def ask(statement):
        return postgres_cluster().ask(statement, database=database)

    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            ask(HOLD)
            waiting = asyncio.create_task(
                api.post(f"/threads/{thread}/runs/wait", request_of("call fail_book {}")))

            async def is_held():
                return ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
                           "AND datname = current_database()") == "1"
            await eventually(is_held, "the record is on its way")
            stopped = tools.owner()
            os.kill(stopped.pid, signal.SIGSTOP)
            try:
                ask("DELETE FROM heddle.hold")
                (answer,) = answers_of((await waiting).json)
                assert answer["status"] == "error" and UNKNOWN in answer["content"]
            finally:
                os.kill(stopped.pid, signal.SIGCONT)

            async def awake():
                return stopped.metrics()["heddle_scheduler_runs_running"] == 0
            await eventually(awake, "the stopped engine has given its run up")
            assert tools.server.calls("fail_book") == []
    run(body(), seconds=90)


def test_a_cancelled_call_is_not_made_again_by_the_next_run(tools):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            tools.server.hold("ask_book")
            begun = (await api.post(f"/threads/{thread}/runs", request_of("call ask_book {}"))).json
            await called(tools, "ask_book")
            await api.post(f"/threads/{thread}/runs/{begun['run_id']}/cancel?wait=1", want=204)
            tools.server.release()
            path = f"/threads/{thread}/runs/wait"
            values = (await api.post(path, {"assistant_id": "tools", "input": None})).json
            assert [one["value"]["tool"] for one in values["__interrupt__"]] == ["ask_book"]
            assert len(tools.server.calls("ask_book")) == 1
            assert tools.rows() == 1

            # New input goes on without it, and then nothing is on record any more.
            values = (await api.post(path, request_of("never mind"))).json
            assert "__interrupt__" not in values
            row = (await api.get(f"/threads/{thread}")).json
            assert (row["status"], row["interrupts"]) == ("idle", {})
            assert len(tools.server.calls("ask_book")) == 1
            assert tools.rows() == 0
    run(body(), seconds=60)


def test_a_deleted_thread_takes_its_ledger_with_it(tools):
    async def body():
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            waiting, victim = await die_in_call(api, tools, thread, "ask_book")
            await waiting
            assert tools.rows() == 1
            await api.call("DELETE", f"/threads/{thread}", want=204)
            assert tools.rows() == 0
            victim.start()
    run(body(), seconds=60)
