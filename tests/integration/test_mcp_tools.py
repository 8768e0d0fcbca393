"""Tools over MCP: a real server, made with the official SDK, that real engines find, lose and find
again; and the tool ledger's rules for calls that are cut off."""

import asyncio
import contextlib
import shutil
import uuid

import pytest

from api_client import connect, eventually, text_of
from clusters import run
from harness import ROOT, SHORT_LEASE_MS, Cluster, McpServer, ModelServer, reserved_port
from stalls import lost

AGENT = """\
agent: tools
description: Calls what it is told to.
models:
  main: {provider: openai, model: plain}
state:
  messages: {reducer: add_messages}
tools:
  - mcp: "${MCP_URL}/mcp"
    timeout: 20
    on_unknown: {once_book: retry}
nodes:
  assistant: {kind: model, model: main, tools: all}
  act:       {kind: tools, tools: CHOICE}
edges:
  - {from: START, to: assistant}
  - {from: assistant, to: act, when: "last(messages).tool_calls"}
  - {from: assistant, to: END}
  - {from: act, to: assistant}
"""
UNKNOWN = "it is not known whether this call was carried out"


class Tools:
    def __init__(self, cluster, server):
        self.cluster = cluster
        self.server = server

    def kill_owner(self):
        """Kills the engine that runs something."""
        (victim,) = [engine for engine in self.cluster.engines if engine.is_running()
                     and engine.metrics()["heddle_scheduler_runs_running"] > 0]
        victim.kill9()
        return victim


def write_agents(folder, choice="all"):
    agents = folder / "agents"
    (agents / "tools").mkdir(parents=True)
    (agents / "tools" / "agent.yaml").write_text(AGENT.replace("CHOICE", choice))
    shutil.copytree(ROOT / "agents" / "echo", agents / "echo")
    return agents


@pytest.fixture(name="make")
def make_fixture(tmp_path):
    """make(...): a cluster whose agent uses an MCP server, all of which end with the test."""
    with contextlib.ExitStack() as stack:
        def make(*, options=(), engines=2, choice="all", started=True):
            port = 0 if started else stack.enter_context(reserved_port())
            server = McpServer(tmp_path, options, port=port)
            stack.callback(server.stop)
            if started:
                server.start()
            model = ModelServer(tmp_path)
            model.start()
            url = f"http://127.0.0.1:{server.command[-1]}"
            cluster = Cluster(tmp_path, agents=write_agents(tmp_path, choice), model=model,
                              engines=engines, lease_ms=SHORT_LEASE_MS,
                              environment={"MCP_URL": url})
            return Tools(stack.enter_context(cluster), server)
        yield make


def request_of(text, agent="tools"):
    return {"assistant_id": agent, "input": {"messages": [{"role": "user", "content": text}]}}


async def say(api, text, thread=None, **options):
    """One turn of a thread, or of a new one."""
    thread = thread or await api.new_thread()
    return (await api.post(f"/threads/{thread}/runs/wait", request_of(text), **options)).json


def answer_of(values):
    """The newest tool message."""
    return [message for message in values["messages"] if message["type"] == "tool"][-1]


async def called(tools, name, times=1):
    async def arrived():
        return len(tools.server.calls(name)) >= times
    await eventually(arrived, f"{name} has been called {times} times")
    calls = tools.server.calls(name)
    assert len(calls) == times or lost(*tools.cluster.engines), calls
    return calls


async def die_in_call(api, tools, name):
    """Begins a run that calls `name`, kills its engine before the answer; the run's values follow."""
    tools.server.hold(name)
    waiting = asyncio.create_task(say(api, f'call {name} {{"what": "x"}}'))
    await called(tools, name)
    tools.kill_owner()
    tools.server.release()
    return await waiting


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["stream", "json"])
def test_a_call_is_answered_and_the_tool_sees_its_key(make, options):
    async def body():
        tools = make(options=options)
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            values = await say(api, 'call fail_book {"what": "a room"}', thread)
            answer = answer_of(values)
            assert answer["status"] == "success"
            assert '"what": "a room", "time": 1' in answer["content"]
            assert "a room" in text_of(values["messages"][-1]), "the model has read it"
            await say(api, 'call fail_book {"what": "a room"}', thread)
            first, second = tools.server.calls("fail_book")
            assert uuid.UUID(first["key"]) != uuid.UUID(second["key"])

            # What only reads has no key; what fails, what is refused and what is not there are told.
            assert answer_of(await say(api, "call look {}"))["status"] == "success"
            assert tools.server.calls("look")[0]["key"] is None
            failed = answer_of(await say(api, "call broken {}"))
            assert failed["status"] == "error" and "it is broken" in failed["content"]
            refused = answer_of(await say(api, 'call fail_book {"what": 7}'))
            assert refused["status"] == "error" and "what: expected string" in refused["content"]
            unknown = answer_of(await say(api, "call nothing {}"))
            assert "not a valid tool, try one of [once_book, fail_book, look, broken]" in \
                unknown["content"]
            assert len(tools.server.calls()) == 3
            offered = [tool["function"]["name"]
                       for tool in tools.cluster.model.requests()[0]["body"]["tools"]]
            assert offered == ["once_book", "fail_book", "look", "broken"]
    run(body())


def test_all_users_of_an_engine_share_one_session_that_opens_with_the_first(make):
    async def body():
        tools = make(engines=1)
        assert tools.server.openings() == 0
        async with connect(tools.cluster.url) as api:
            tools.server.hold("fail_book")
            waiting = [asyncio.create_task(say(api, 'call fail_book {"what": "x"}'))
                       for _ in range(8)]
            await called(tools, "fail_book", 8)
            # A call that takes its time holds up nobody else.
            assert answer_of(await say(api, "call look {}"))["status"] == "success"
            assert not any(each.done() for each in waiting)
            tools.server.release()
            await asyncio.gather(*waiting)
        assert tools.server.openings() == 1
        assert len({call["session"] for call in tools.server.calls()}) == 1
    run(body())


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["stream", "json"])
def test_a_call_that_was_cut_off_is_made_again_with_its_key_if_the_agent_says_so(make, options):
    async def body():
        tools = make(options=options)
        async with connect(tools.cluster.url) as api:
            values = await die_in_call(api, tools, "once_book")
            calls = await called(tools, "once_book", 2)
            assert len({call["key"] for call in calls}) == 1 and uuid.UUID(calls[0]["key"])
            assert calls[0]["session"] != calls[-1]["session"], "another engine's session"
            answer = answer_of(values)
            assert answer["status"] == "success" and '"time": 1' in answer["content"], "done once"
    run(body())


def test_any_other_call_that_was_cut_off_is_not_made_again_and_the_model_is_told(make):
    async def body():
        tools = make()
        async with connect(tools.cluster.url) as api:
            values = await die_in_call(api, tools, "fail_book")
            answer = answer_of(values)
            assert answer["status"] == "error" and UNKNOWN in answer["content"]
            assert UNKNOWN in text_of(values["messages"][-1]), "the model has read it"
            assert len(tools.server.calls("fail_book")) == 1
    run(body())


def test_a_server_that_dies_in_a_call_is_not_asked_again(make):
    async def body():
        tools = make(options=("--json",), engines=1)
        async with connect(tools.cluster.url) as api:
            await say(api, "call look {}")  # there is a connection to be used again
            tools.server.hold("fail_book")
            waiting = asyncio.create_task(say(api, 'call fail_book {"what": "x"}'))
            await called(tools, "fail_book")
            tools.server.identity.send(9)
            tools.server.process.wait()
            tools.server.start()
            answer = answer_of(await waiting)
            assert answer["status"] == "error" and UNKNOWN in answer["content"]
            assert tools.server.calls() == []
    run(body())


def test_a_server_that_was_restarted_gets_a_new_session(make):
    async def body():
        tools = make(engines=1)
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            await say(api, 'call fail_book {"what": "x"}', thread)
            (before,) = tools.server.calls()
            tools.server.stop()
            gone = answer_of(await say(api, 'call fail_book {"what": "x"}', thread))
            assert gone["status"] == "error" and "no connection" in gone["content"]
            tools.server.start()
            answer = answer_of(await say(api, 'call fail_book {"what": "x"}', thread))
            assert answer["status"] == "success"
            (after,) = tools.server.calls()
            assert after["session"] != before["session"]
            assert tools.server.openings() == 1
    run(body())


def test_a_server_that_is_not_there_fails_only_the_runs_that_need_it(make):
    async def body():
        tools = make(started=False)
        async with connect(tools.cluster.url) as api:
            thread = await api.new_thread()
            echo = (await api.post(f"/threads/{thread}/runs/wait", request_of("hi", "echo"))).json
            assert text_of(echo["messages"][-1]) == "hi"
            failed = (await say(api, "call look {}"))["__error__"]
            port = tools.server.command[-1]
            assert failed["error"] == "unavailable"
            assert f"MCP server 127.0.0.1:{port}: no connection" in failed["message"]
            tools.server.start()
            assert answer_of(await say(api, "call look {}"))["status"] == "success"
    run(body())


def test_a_name_that_the_server_does_not_offer_is_the_nodes_error(make):
    async def body():
        tools = make(engines=1, choice="[fail_book, paint]")
        async with connect(tools.cluster.url) as api:
            failed = (await say(api, 'call fail_book {"what": "x"}'))["__error__"]
            assert 'node "act": there is no tool "paint"' in failed["message"]
            assert failed["error"] == "GraphError"
            assert tools.server.calls() == []
    run(body())
