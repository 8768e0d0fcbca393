"""Hostile input over HTTP and straight on an engine's socket: a precise 4xx that names the field,
or a counted drop, and afterwards the same engines still answer."""

import asyncio
import json
import os
import random
import string
import uuid

import msgpack
import pytest

from api_client import connect, is_error, run_of
from clusters import BODY_BYTES_MAX, ENGINE_BODY_BYTES_MAX, ROOMY, run, slow_cluster
from wire_client import BODY, CANCEL, CREDIT, HELLO, PING, REQUEST, WireClient

DEPTH = 10_000
FUZZ_REQUESTS = 500
FUZZ_FRAMES = 500


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with slow_cluster(tmp_path_factory.mktemp("bad"), latency=0.3, engines=2, workers=2) as cluster:
        yield cluster
        cluster.check_clean()


def bad_input_test(function):
    """Runs `async def test(api)`; afterwards the engines of before are alive and answer."""
    def test(server):
        before = server.engine_pids()

        async def body():
            async with connect(server.url) as api:
                await function(api)
                await still_answers(api)
        run(body())
        assert server.engine_pids() == before, "an engine died and was replaced"
    test.__name__ = function.__name__
    test.__doc__ = function.__doc__
    return test


async def still_answers(api):
    for _ in range(4):
        values = (await api.post("/runs/wait", run_of("echo", "still there?"))).json
        assert len(values["messages"]) == 2


# Every route that takes a body.
THREAD = "{thread}"
BODY_ROUTES = [
    "/threads", "/threads/search", "/assistants/search", "/chat", "/runs", "/runs/wait",
    "/runs/stream", f"/threads/{THREAD}/runs", f"/threads/{THREAD}/runs/wait",
    f"/threads/{THREAD}/runs/stream", f"/threads/{THREAD}/history",
    f"/threads/{THREAD}/state/checkpoint",
]

NOT_JSON = {
    "nothing but an opening": b"{",
    "a cut string": b'{"assistant_id": "echo',
    "text after the end": b'{"assistant_id": "echo"} {}',
    "a comma too many": b'{"assistant_id": "echo",}',
    "single quotes": b"{'assistant_id': 'echo'}",
    "a bare word": b"nonsense",
    "a number like no other": b'{"limit": 01}',
    "not a number": b'{"limit": NaN}',
    "no UTF-8": b'{"assistant_id": "\xff\xfe"}',
    "an overlong UTF-8 form": b'{"assistant_id": "\xc0\xaf"}',
    "half a surrogate in UTF-8": b'{"assistant_id": "\xed\xa0\x80"}',
    "a NUL byte": b'{"assistant_id": "a\x00"}',
    "a control byte in a string": b'{"assistant_id": "a\nb"}',
    "a repeated key": b'{"assistant_id": "echo", "assistant_id": "slow"}',
    "a repeated key far inside": b'{"input": {"a": [{"k": 1, "k": 2}]}}',
    "10,000 arrays": b'{"input": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "10,000 objects": b'{"input": ' + b'{"a":' * DEPTH + b"1" + b"}" * DEPTH + b"}",
    "10,000 arrays never closed": b'{"input": ' + b"[" * DEPTH,
}


@pytest.mark.parametrize("what", NOT_JSON)
def test_broken_bodies_are_bad_requests_on_every_route(server, what):
    async def body(api):
        thread = await api.new_thread()
        for route in BODY_ROUTES:
            answer = await api.post(route.format(thread=thread), data=NOT_JSON[what], want=400)
            is_error(answer, "bad_request")
        assert await api.thread_messages(thread) == []
        runs = (await api.get(f"/threads/{thread}/runs")).json
        assert runs == [], "a refused body makes no run"
    bad_input_test(body)(server)


@bad_input_test
async def test_a_repeated_key_is_named(api):
    body = b'{"assistant_id": "echo", "metadata": {}, "metadata": {}}'
    is_error(await api.post("/runs/wait", data=body, want=400), "bad_request", "metadata")


@bad_input_test
async def test_bodies_that_are_no_objects(api):
    thread = await api.new_thread()
    for route in BODY_ROUTES:
        for body in (b"[]", b"7", b'"text"', b"null", b"true"):
            answer = await api.post(route.format(thread=thread), data=body, want=(400, 422))
            is_error(answer)


# What each field of RunCreate must not be. Every list holds values of wrong types or out of range.
OBJECTS = ["text", 7, True, [1]]
TEXTS = [7, True, {}, ["a"]]
FLAGS = ["maybe", 7, {}, []]
WRONG = {
    "assistant_id": [7, True, {}, ["echo"], None, ""],
    "input": ["text", 7, True],
    "metadata": OBJECTS,
    "config": OBJECTS,
    "context": OBJECTS,
    "interrupt_before": [7, True, {}, [7], "no_such_node", ["no_such_node"]],
    "interrupt_after": [7, True, {}, [7], "no_such_node", ["no_such_node"]],
    "stream_mode": [7, True, {}, [7], "no_such_mode", ["values", "no_such_mode"], [None]],
    "stream_subgraphs": FLAGS,
    "stream_resumable": FLAGS,
    "multitask_strategy": TEXTS + ["sometimes"],
    "if_not_exists": TEXTS + ["maybe"],
    "on_disconnect": TEXTS + ["shrug"],
    "on_completion": TEXTS + ["archive"],
    "after_seconds": ["soon", True, {}, [], -1],
    "durability": TEXTS + ["hopefully"],
    "checkpoint_during": FLAGS,
    "checkpoint": OBJECTS + [{"checkpoint_id": 7}, {"surprise": 1}],
    "checkpoint_id": [7, True, {}, [], "not-a-uuid"],
    "command": ["go", 7, True, {"surprise": 1}],
    "webhook": [7, "ftp://127.0.0.1/"],
    "feedback_keys": ["good", [7]],
}
WRONG_INSIDE = {
    "recursion_limit": {"config": {"recursion_limit": 0}},
    "config.recursion_limit": {"config": {"recursion_limit": "many"}},
    "recursion_limit ": {"config": {"recursion_limit": 10 ** 30}},
    "tags": {"config": {"tags": "one"}},
    "configurable": {"config": {"configurable": 7}},
    "messages": {"input": {"messages": 7}},
    "messages ": {"input": {"messages": [7]}},
    "messages  ": {"input": {"messages": [{"role": "user", "content": 7}]}},
    "messages   ": {"input": {"messages": [{"role": 7, "content": "x"}]}},
    "messages    ": {"input": {"messages": [{"role": "alien", "content": "x"}]}},
    "messages     ": {"input": {"messages": [{"type": "human", "content": "x", "id": 7}]}},
    "surprise": {"input": {"surprise": 1}},
}


@bad_input_test
async def test_every_run_field_of_a_wrong_type_is_named(api):
    thread = await api.new_thread()
    for route in ("/runs/wait", f"/threads/{thread}/runs", f"/threads/{thread}/runs/stream"):
        for field, values in WRONG.items():
            for value in values:
                body = {**run_of("echo", "x"), field: value}
                answer = await api.post(route, body, want=None)
                if field == "assistant_id" and value == "":
                    assert answer.status in (404, 422), (value, answer.text)
                else:
                    assert answer.status == 422, (field, value, answer.status, answer.text[:300])
                is_error(answer, field=field)
    assert (await api.get(f"/threads/{thread}/runs")).json == []


@bad_input_test
async def test_fields_inside_are_named_too(api):
    """Refused before the run is made, or the run ends as error and names the channel."""
    for field, more in WRONG_INSIDE.items():
        answer = await api.post("/runs/wait", {**run_of("echo", "x"), **more}, want=(200, 422))
        if answer.status == 422:
            is_error(answer, field=field.strip())
        else:
            assert field.strip() in json.dumps(answer.json["__error__"]), (field, answer.text)


@bad_input_test
async def test_unknown_fields_are_refused_by_name(api):
    thread = await api.new_thread()
    for route in BODY_ROUTES:
        body = {"surprise": 1}
        if "/runs" in route:
            body["assistant_id"] = "echo"
        if route == "/chat":
            body |= {"agent": "echo", "message": "x"}
        if route.endswith("/checkpoint"):
            body["checkpoint"] = {"checkpoint_id": str(uuid.uuid4())}
        answer = await api.post(route.format(thread=thread), body, want=422)
        is_error(answer, field="surprise")


UNSUPPORTED = {
    "command": {"goto": "answer"},
    "checkpoint": {"checkpoint_id": str(uuid.uuid4())},
    "checkpoint_id": str(uuid.uuid4()),
    "webhook": "http://127.0.0.1:1/hook",
    "feedback_keys": ["good"],
    "langsmith_tracer": {"project_name": "p"},
    "stream_subgraphs": True,
    "after_seconds": 5,
    "stream_mode": "events",
}


@bad_input_test
async def test_what_is_not_obeyed_is_refused_by_name(api):
    thread = await api.new_thread()
    for field, value in UNSUPPORTED.items():
        body = {**run_of("echo", "x"), field: value}
        answer = await api.post(f"/threads/{thread}/runs/wait", body, want=422)
        is_error(answer, "unsupported", field)
    defaults = {"command": None, "checkpoint": None, "checkpoint_id": None, "webhook": None,
                "feedback_keys": [], "stream_subgraphs": False, "after_seconds": 0}
    await api.post(f"/threads/{thread}/runs/wait", {**run_of("echo", "x"), **defaults})


@bad_input_test
async def test_unknown_assistant_and_broken_ids(api):
    thread = await api.new_thread()
    for name in ("nobody", str(uuid.uuid4()), "../echo", "echo ", "ECHO", "x" * 10_000):
        for route in ("/runs", "/runs/wait", "/runs/stream", f"/threads/{thread}/runs/wait"):
            answer = await api.post(route, run_of(name, "x"), want=404)
            is_error(answer, "not_found")
            assert len(answer.text) < 1000, "an error does not repeat 10,000 characters"
    for broken in ("x", "123", "%00", "%ff", "..", str(uuid.uuid4())[:-1], "a" * 3000):
        answer = await api.get(f"/threads/{broken}/state", want=None)
        assert 400 <= answer.status < 500, (broken, answer.status)
        answer = await api.get(f"/threads/{thread}/runs/{broken}/join", want=None)
        assert 400 <= answer.status < 500, (broken, answer.status)
    is_error(await api.get(f"/threads/{uuid.uuid4()}/state", want=404), "not_found")


@bad_input_test
async def test_query_parameters_out_of_range(api):
    thread = await api.new_thread()
    for query, name in (("limit=0", "limit"), ("limit=-1", "limit"), ("limit=1001", "limit"),
                        ("limit=x", "limit"), ("limit=99999999999999999999", "limit"),
                        ("offset=-1", "offset"), ("offset=x", "offset"),
                        ("status=wild", "status")):
        is_error(await api.get(f"/threads/{thread}/runs?{query}", want=422), field=name)
    for query, name in (("limit=0", "limit"), ("limit=x", "limit"), ("before=x", "before")):
        is_error(await api.get(f"/threads/{thread}/history?{query}", want=422), field=name)


def test_a_body_too_large_for_nginx_and_one_too_large_for_the_engine(server):
    async def body(api):
        for size, route in ((BODY_BYTES_MAX + 1, "/runs/wait"),
                            (BODY_BYTES_MAX + 1, "/threads")):
            answer = await api.post(route, data=b" " * size, want=413)
            is_error(answer, "payload_too_large")
        # What nginx lets through here and the engine does not take.
        large = json.dumps(run_of("echo", "x" * (ENGINE_BODY_BYTES_MAX + 1))).encode()
        answer = await api.post(ROOMY + "/runs/wait", data=large, want=413)
        is_error(answer, "payload_too_large")
    bad_input_test(body)(server)


@bad_input_test
async def test_random_requests(api):
    """Mutations of good requests: whatever comes, a JSON answer below 500."""
    seed = int(os.environ.get("HEDDLE_SEED") or random.randrange(1 << 32))
    print(f"seed {seed} (HEDDLE_SEED repeats it)")
    chance = random.Random(seed)
    thread = await api.new_thread()
    statuses = {}
    for number in range(FUZZ_REQUESTS):
        method, path, data = random_request(chance, thread)
        answer = await api.call(method, path, data=data, want=None)
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert answer.status < 500, (seed, number, method, path, data, answer.text[:500])
        if answer.status >= 400 and method != "HEAD":
            is_error(answer)
    assert {200, 422} <= set(statuses), f"the mutations reach neither side: {statuses}"


def random_value(chance, depth=0):
    kinds = [None, True, False, 0, -1, 1.5, 10 ** 30, "", "x", "echo", "values", "\u0000\ud7ff",
             "é" * 100, str(uuid.UUID(int=chance.getrandbits(128))), 1e308]
    if depth < 3 and chance.random() < 0.3:
        return [random_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if depth < 3 and chance.random() < 0.3:
        return {chance.choice(["messages", "role", "content", "id", "type", "a"]):
                random_value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return chance.choice(kinds)


def random_request(chance, thread):
    route = chance.choice(BODY_ROUTES).format(thread=thread)
    body = run_of("echo", "x") if "/runs" in route else {}
    if chance.random() < 0.8:
        for _ in range(chance.randrange(1, 4)):
            body[chance.choice([*WRONG, "limit", "offset", "ids", "status", "agent", "message",
                                "before", "checkpoint", "thread_id"])] = random_value(chance)
    data = bytearray(json.dumps(body).encode())
    if chance.random() < 0.4:
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data) + 1)
            data[at:at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    path = route
    if chance.random() < 0.2:
        path += "?" + "".join(chance.choice(string.ascii_letters + "=&%[]\"") for _ in range(12))
    method = chance.choice(["POST"] * 12 + ["GET", "PUT", "DELETE", "PATCH"])
    return method, path, bytes(data)


# ---- straight on an engine's socket


def frames_dropped(client):
    status, text = client.request("GET", "/metrics")
    assert status == 200
    for line in text.decode().splitlines():
        if line.startswith("heddle_transport_frames_dropped_total"):
            return int(float(line.split()[-1]))
    raise AssertionError("no counter of dropped frames")


def packed(value):
    return msgpack.packb(value, use_bin_type=True)


GOOD = packed([REQUEST, 7, {1: "GET", 2: b"/ok", 8: 1000}])
GARBAGE = {
    "an empty frame": b"",
    "one byte": b"\xc1",
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "no array": packed({1: 2}),
    "an array too short": packed([REQUEST, 1]),
    "an array too long": packed([PING, 0, {}, {}]),
    "half a frame": GOOD[:len(GOOD) // 2],
    "a frame and more": GOOD + b"\x00",
    "an unknown kind": packed([200, 0, {}]),
    "a kind that only engines send": packed([36, 1, {}]),
    "a kind of a wrong type": packed(["request", 1, {}]),
    "an id of a wrong type": packed([REQUEST, "seven", {1: "GET", 2: b"/ok"}]),
    "a request without a method": packed([REQUEST, 1, {2: b"/ok"}]),
    "a path too long": packed([REQUEST, 1, {1: "GET", 2: b"/" * 20_000}]),
    "a header with a line break": packed([REQUEST, 1, {1: "GET", 2: b"/ok",
                                                       4: ["a", b"b\r\nc: d"]}]),
    "headers without a value": packed([REQUEST, 1, {1: "GET", 2: b"/ok", 4: ["a"]}]),
    "too many headers": packed([REQUEST, 1, {1: "GET", 2: b"/ok", 4: ["a", b"b"] * 65}]),
    "a length that lies": b"\x93\x03\x01\xdf\xff\xff\xff\xff",
    "a string that lies": b"\x93\x03\x01\x81\x01\xdb\xff\xff\xff\xffGET",
    "deep nesting": b"\x91" * 100_000,
    "a body of nobody": packed([BODY, 999, {1: b"x", 2: True}]),
    "more than a chunk may have": packed([BODY, 1, {1: b"x" * (300 << 10)}]),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_on_the_engines_socket_is_counted_and_dropped(server, what):
    with WireClient(server.engines[0].endpoint) as client:
        before = frames_dropped(client)
        client.send_raw(GARBAGE[what])
        client.ping()
        assert frames_dropped(client) == before + 1, what
        assert client.request("GET", "/ok") == (200, b'{"ok":true}')


def test_frames_of_no_known_edge_and_of_many_parts(server):
    endpoint = server.engines[0].endpoint
    with WireClient(endpoint) as known:
        engine_id = known.engine_id
        before = frames_dropped(known)
        with WireClient(endpoint, hello=False) as stranger:
            stranger.send_raw(GOOD)
            stranger.receive(35)  # hello wanted: says it, then is served
            stranger.hello()
            assert stranger.request("GET", "/ok")[0] == 200
            stranger.send_raw(b"", GOOD)
            stranger.send_raw(GOOD, GOOD, GOOD)
            stranger.send_raw(packed([CREDIT, 12345, {1: 1 << 40}]))
            stranger.send_raw(packed([CANCEL, 12345, {}]))
            stranger.send_raw(packed([HELLO, 0, {1: 1, 2: 1, 3: stranger.edge_id}]))
            assert stranger.ping()[2].decode() == engine_id
        assert frames_dropped(known) > before
        assert known.ping()[2].decode() == engine_id


def test_a_frame_past_the_largest_costs_its_sender_the_connection(server):
    """It is cut off before it is in memory; nobody else notices, and the sender may return."""
    engine = server.engines[0]
    with WireClient(engine.endpoint) as known, WireClient(engine.endpoint) as sender:
        before = engine.rss()
        for _ in range(8):
            sender.send_raw(b"x" * (16 << 20))
        assert known.ping()[2].decode() == known.engine_id
        assert known.request("GET", "/ok") == (200, b'{"ok":true}')
        assert engine.rss() - before < (16 << 20), "it was never kept"
    with WireClient(engine.endpoint) as again:
        assert again.request("GET", "/ok")[0] == 200


def test_random_frames(server):
    seed = int(os.environ.get("HEDDLE_SEED") or random.randrange(1 << 32))
    print(f"seed {seed} (HEDDLE_SEED repeats it)")
    chance = random.Random(seed)
    with WireClient(server.engines[1].endpoint) as client:
        before = frames_dropped(client)
        engine_id = client.engine_id
        body = json.dumps(run_of("echo", "x")).encode()
        good = [GOOD, packed([REQUEST, 3, {1: "POST", 2: b"/runs/wait", 8: 1000, 10: body}]),
                packed([PING, 0, {1: 9}]), packed([CREDIT, 3, {1: 10}]), packed([CANCEL, 3, {}])]
        for _ in range(FUZZ_FRAMES):
            frame = bytearray(chance.choice(good))
            for _ in range(chance.randrange(1, 5)):
                at = chance.randrange(len(frame) + 1)
                frame[at:at + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
            client.send_raw(bytes(frame))
        with WireClient(server.engines[1].endpoint) as other:
            assert other.ping()[2].decode() == engine_id
            assert frames_dropped(other) > before
            assert other.request("GET", "/ok") == (200, b'{"ok":true}')


def test_a_body_that_never_ends_is_bounded(server):
    """Body frames past the engine's limit get 413 at once and take no memory after that."""
    with WireClient(server.engines[0].endpoint) as client:
        before = server.engines[0].rss()
        client.send(REQUEST, 77, {1: "POST", 2: b"/runs/wait", 8: 1 << 20, 11: False})
        piece = b"x" * (256 << 10)
        for _ in range(ENGINE_BODY_BYTES_MAX // len(piece) + 40):
            client.send(BODY, 77, {1: piece})
        status, body = client.answer(77)
        assert status == 413 and json.loads(body)["code"] == "payload_too_large"
        client.send(BODY, 77, {1: b"", 2: True})
        assert client.request("GET", "/ok")[0] == 200
        grown = server.engines[0].rss() - before
        assert grown < 3 * ENGINE_BODY_BYTES_MAX, f"{grown} bytes more"


def test_concurrent_bad_and_good_requests(server):
    async def body(api):
        bad = [api.post("/runs/wait", data=b"{" * 100, want=400) for _ in range(100)]
        good = [api.post("/runs/wait", run_of("echo", str(n))) for n in range(100)]
        answers = await asyncio.gather(*bad, *good)
        for n, answer in enumerate(answers[100:]):
            assert answer.json["messages"][0]["content"] == str(n)
    bad_input_test(body)(server)
