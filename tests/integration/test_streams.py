"""Long and large: slow readers, clients that go, large bodies in every form, events one by one, and
a reload with streams open."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse

import aiohttp
import pytest

from api_client import SseReader, connect, eventually, human, is_error, run_of, text_of
from clusters import run, slow_cluster
from silent_reader import SilentReader

MB = 1 << 20
LARGE = 20 * MB
MODEL_SECONDS = 1.5
SLOW_READERS = 24
WORDS_READ, WORDS_APART, APART_SECONDS = 50, 15, 0.03
LEAVE_SECONDS = 30.0  # a worker has 3 s for its streams; what holds one back is send_timeout, 60 s
QUICK_SECONDS = 1.0   # what a request takes that waits for nobody, at most
TRIES = 3             # in one of which the machine does not stand still


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with slow_cluster(tmp_path_factory.mktemp("streams"), latency=MODEL_SECONDS, engines=2,
                      workers=1) as cluster:
        yield cluster
        cluster.check_clean()


def stream_test(function):
    def test(server):
        async def body():
            async with connect(server.url) as api:
                await function(api, server)
        run(body())
    test.__name__ = function.__name__
    test.__doc__ = function.__doc__
    return test


# ---- one event after another


@stream_test
async def test_events_arrive_when_they_happen(api, server):
    """The model says ten words a second for a minute. They come one by one and long before its end;
    a machine that stands still makes some of them come together."""
    thread = await api.new_thread()
    body = run_of("long", "hello", stream_mode=["messages-tuple"], on_disconnect="cancel")
    names, times = [], []
    async with api.open_stream("POST", f"/threads/{thread}/runs/stream", body) as (_, events):
        async for event in events:
            names.append(event.name)
            if event.name == "messages":
                times.append(event.at)
            if len(times) == WORDS_READ:
                break
        assert server.model.stats()["concurrent"] == 1, "the model is not done"
    assert names[0] == "metadata"
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    print(f"longest of {len(gaps)} gaps {max(gaps):.2f} s")
    assert sum(gap > APART_SECONDS for gap in gaps) >= WORDS_APART, "nothing was held back"


@stream_test
async def test_the_head_comes_before_the_model_answers(api, server):
    thread = await api.new_thread()
    server.model.reset()
    body = run_of("long", "hello", stream_mode=["values", "messages-tuple"],
                  on_disconnect="cancel")
    async with api.open_stream("POST", f"/threads/{thread}/runs/stream", body) as (_, events):
        first = await events.__anext__()
        assert first.name == "metadata" and server.model.stats()["calls"] == 0


# ---- readers that do not read, clients that go


async def in_pool(function, *arguments):
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


@stream_test
async def test_slow_readers_are_stopped_at_the_source(api, server):
    """Each stream has about 6 MB to say and nobody reads. Nginx keeps at most a small window of
    each, others are served as before, and the readers that go on later get all of it."""
    text = "x" * MB
    threads = [await api.new_thread() for _ in range(SLOW_READERS)]
    await api.post("/runs/wait", run_of("chain5", text))  # warm: buffers that stay are not growth
    worker_before = server.worker_rss()
    engines_before = server.engines_rss()
    body = run_of("chain5", text, stream_mode="values")
    readers = [await in_pool(SilentReader, server.url, f"/threads/{thread}/runs/stream", body)
               for thread in threads]
    try:
        for thread in threads:
            async def idle(one=thread):
                runs = (await api.get(f"/threads/{one}/runs")).json
                return runs and runs[0]["status"] == "success"
            await eventually(idle, "a run ends although nobody reads its stream", 60)
        taken = sorted([(await api.post("/runs/wait", run_of("echo", f"quick {number}"))).seconds
                        for number in range(100)])
        grown = server.worker_rss() - worker_before
        engines_grown = server.engines_rss() - engines_before
        print(f"{SLOW_READERS} silent readers of 6 MB: nginx {grown / MB:.1f} MB more, engines "
              f"{engines_grown / MB:.1f} MB more, slowest other request {taken[-1]:.3f} s")
        assert taken[89] < QUICK_SECONDS
        # A request body of 1 MB and a window of 1 MB for each stream, and no more than that.
        assert grown < SLOW_READERS * 2.5 * MB
        # The run's own log (bounded, 8 MB), its state and its journal; not a queue of frames too.
        assert engines_grown < SLOW_READERS * 24 * MB
        for reader in readers[:3]:
            head, stream = await in_pool(reader.read_all)
            assert " 200 " in head.splitlines()[0]
            parser = SseReader()
            events = parser.feed(stream)
            parser.at_end()
            counts = [len(event.data["messages"]) for event in events if event.name == "values"]
            assert counts == [1, 2, 3, 4, 5, 6]
    finally:
        for reader in readers:
            reader.close()


@stream_test
async def test_a_client_that_goes_ends_its_run_and_the_model_call(api, server):
    """on_disconnect=cancel: nginx tells the engine, the engine closes the model's connection."""
    server.model.reset()
    threads = [await api.new_thread() for _ in range(10)]
    clients = [await in_pool(SilentReader, server.url, f"/threads/{thread}/runs/stream",
                             run_of("long", "hi", stream_mode="messages-tuple",
                                    on_disconnect="cancel"))
               for thread in threads]

    async def all_call():
        return server.model.stats()["concurrent"] == len(threads)
    await eventually(all_call, "every run is calling the model")
    for client in clients:
        client.close()

    async def none_calls():
        return server.model.stats()["concurrent"] == 0
    await eventually(none_calls, "the model calls are given up", 20)
    for thread in threads:
        made = (await api.get(f"/threads/{thread}/runs")).json[0]
        assert await api.wait_run(thread, made["run_id"], seconds=20) == "interrupted"
        # The thread is free at once.
        await api.post(f"/threads/{thread}/runs/wait",
                       run_of("long", "again", multitask_strategy="reject",
                              interrupt_before="*"))


@stream_test
async def test_hundreds_of_clients_that_go_leave_nothing_open(api, server):
    """Every stream that was opened is closed in the engines too."""
    threads = [await api.new_thread() for _ in range(200)]
    clients = [await in_pool(SilentReader, server.url, f"/threads/{thread}/runs/stream",
                             run_of("slow", "hi")) for thread in threads]
    for client in clients:
        client.close()

    async def closed():
        return sum(engine.metrics()["heddle_transport_streams_open"]
                   for engine in server.engines) == 0
    await eventually(closed, "no stream is open in any engine", 30)


# ---- what is kept of a stream, and what is not


@pytest.fixture
def narrow(tmp_path):
    """Room for some ten events of a run, and for a second after its end."""
    options = ("--run-log-bytes-max", 8192, "--ended-run-seconds", 1)
    with slow_cluster(tmp_path, latency=MODEL_SECONDS, engines=2, workers=1,
                      engine_options=options) as cluster:
        yield cluster
        cluster.check_clean()


def steps_of(events):
    return [(event.id, event.name, event.data) for event in events
            if event.name in ("values", "updates")]


async def read_twice(api, thread):
    """A run's events, those that a reader gets who comes when it has made 25, and where."""
    wanted = run_of("wordy", "hello", stream_mode=["values", "updates", "messages-tuple"])
    first, late = [], None
    async with api.open_stream("POST", f"/threads/{thread}/runs/stream", wanted) as (head, events):
        async for event in events:
            first.append(event)
            if late is None and len(first) == 25:
                late = asyncio.create_task(api.stream("GET", head.headers["location"]))
    stream = head.headers["location"]
    return first, await late if late else await api.stream("GET", stream), stream


def count_lost(events):
    return [event.name for event in events].count("lost")


def test_a_late_reader_is_told_what_it_has_missed(narrow):
    """Tokens that were dropped are announced, what a superstep came to is read back, and the stream
    goes on; so it is again when nothing of the run is left in memory."""
    async def body():
        async with connect(narrow.url) as api:
            for _ in range(TRIES):
                thread = await api.new_thread()
                first, late, stream = await read_twice(api, thread)
                # After a pause of the machine there are more words at once than there is room for.
                if count_lost(first) == 0 and count_lost(late) < 2:
                    break
            tokens = [event for event in first if event.name == "messages"]
            assert len(tokens) > 25 and count_lost(first) == 0
            check_late(thread, first, late)
            assert steps_of(late) == steps_of(first)

            async def forgotten():
                rest = await api.stream("GET", stream, headers={"last-event-id": tokens[-2].id})
                return rest if rest[0].name == "lost" else None
            rest = await eventually(forgotten, "the run has left the engine's memory", 20)
            assert rest[0].id == tokens[-1].id and rest[0].data["after"] == tokens[-2].id
            assert [event.name for event in rest[1:]] == ["updates", "values"] or \
                [event.name for event in rest[1:]] == ["values", "updates"]
            assert steps_of(rest) == steps_of(first)[-2:]
            whole = await api.stream("GET", stream, headers={"last-event-id": tokens[-1].id})
            assert steps_of(whole) == steps_of(rest) and len(whole) == 2, "nothing is missing"
    run(body())


def check_late(thread, first, late):
    ids = [int(event.id) for event in late]
    assert ids == sorted(set(ids))
    lost = [event for event in late if event.name == "lost"]
    assert len(lost) == 1, [event.name for event in late]
    assert lost[0].data["code"] == "events_lost" and lost[0].data["modes"] == ["messages-tuple"]
    assert lost[0].data["state"] == f"/threads/{thread}/state" and lost[0].data["checkpoint_id"]
    missing = {event.id for event in first} - {event.id for event in late}
    assert missing and max(map(int, missing)) < int(lost[0].id)
    assert lost[0].id in {event.id for event in first if event.name == "messages"}
    assert "error" not in {event.name for event in late}


# ---- large bodies


def large_body():
    return json.dumps(run_of("echo", "0123456789abcdef" * (LARGE // 16))).encode()


async def post_large(api, make_data):
    """A body that is long under way finds no engine if the machine stands still for so long that
    nginx has taken each of them for dead; it is sent again."""
    for _ in range(TRIES):
        answer = await api.post("/runs/wait", data=make_data(), want=(200, 503))
        if answer.status == 200:
            return answer.json
        is_error(answer, "unavailable")
    raise AssertionError(f"503 each of {TRIES} times")


def check_large(values):
    texts = [text_of(message) for message in values["messages"]]
    assert len(texts) == 2 and texts[0] == texts[1] == "0123456789abcdef" * (LARGE // 16)


@stream_test
async def test_a_large_body_with_a_length(api, server):
    """20 MB, past client_body_buffer_size, so nginx keeps it in a temporary file."""
    check_large(await post_large(api, large_body))


@stream_test
async def test_a_large_body_in_chunks(api, server):
    data = large_body()

    async def pieces():
        for at in range(0, len(data), 100_003):
            yield data[at:at + 100_003]
    check_large(await post_large(api, pieces))


@pytest.mark.skipif("HTTP2" not in subprocess.run(["curl", "-V"], capture_output=True,
                                                  text=True).stdout, reason="curl without HTTP/2")
def test_a_large_body_and_a_stream_over_http2(server, tmp_path):
    (tmp_path / "body.json").write_bytes(large_body())
    answer = curl(server.h2_url + "/runs/wait", "@" + str(tmp_path / "body.json"))
    check_large(json.loads(answer))
    events = SseReader().feed(curl(server.h2_url + "/runs/stream", json.dumps(
        run_of("wordy", "over h2", stream_mode=["values", "messages-tuple"]))))
    assert [event.name for event in events][0] == "metadata"
    assert len(events[-1].data["messages"]) == 2
    assert len([event for event in events if event.name == "messages"]) >= 10


def curl(url, data):
    for _ in range(TRIES):
        done = subprocess.run([shutil.which("curl"), "--silent", "--show-error", "--fail-with-body",
                               "--http2-prior-knowledge", "--max-time", "60", "--header",
                               "content-type: application/json", "--data-binary", data, url],
                              capture_output=True, check=False)
        if b'"unavailable"' not in done.stdout[:100]:  # as in post_large
            break
    assert done.returncode == 0, (done.stderr, done.stdout[:500])
    return done.stdout


@stream_test
async def test_bodies_of_every_size_around_the_buffers(api, server):
    """Sizes around nginx's buffers and the protocol's chunk, where off-by-one lives."""
    for edge in (1024, 4096, 8192, 16384, 65536, 256 << 10, 512 << 10, MB):
        for size in (edge - 1, edge, edge + 1):
            frame = json.dumps(run_of("echo", "")).encode()
            body = json.dumps(run_of("echo", "y" * (size - len(frame)))).encode()
            assert len(body) == size
            values = (await api.post("/runs/wait", data=body)).json
            assert values["messages"][1]["content"] == "y" * (size - len(frame))


@stream_test
async def test_a_client_that_goes_in_the_middle_of_its_body(api, server):
    target = urllib.parse.urlsplit(server.url)
    for number in range(50):
        with socket.create_connection((target.hostname, target.port)) as client:
            client.sendall(b"POST /runs/wait HTTP/1.1\r\nhost: h\r\ncontent-type: application/json"
                           b"\r\ncontent-length: 1000000\r\n\r\n" + b"x" * (number * 10_000))
    await api.post("/runs/wait", run_of("echo", "after"))


# ---- reload


async def read_through_reload(api, thread, begun):
    """A run's events, by the last id after a cut; `begun` has its thread from the first one on."""
    received = []
    body = run_of("wordy", "hello", stream_mode=["values", "messages-tuple"],
                  stream_resumable=True)
    with contextlib.suppress(aiohttp.ClientPayloadError):
        async with api.open_stream("POST", f"/threads/{thread}/runs/stream", body) as (_, events):
            async for event in events:
                begun.add(thread)
                received.append(event)
    run_id = received[0].data["run_id"]
    if received[-1].name != "values" or len(received[-1].data["messages"]) < 2:
        # Cut between two events: the client goes on with its last id, as the SDKs do.
        received += await api.stream("GET", f"/threads/{thread}/runs/{run_id}/stream",
                                     headers={"last-event-id": received[-1].id})
    return received


async def reload_with_streams_open(api, server):
    """The longest of the requests that come meanwhile, in seconds."""
    threads = [await api.new_thread() for _ in range(10)]
    old = server.worker_pids()
    begun = set()
    tasks = [asyncio.create_task(read_through_reload(api, thread, begun)) for thread in threads]

    async def all_begun():
        return len(begun) == len(threads)
    await eventually(all_begun, "every stream has begun")
    os.kill(server.master_pid, signal.SIGHUP)

    async def replaced():
        now = server.worker_pids()
        return now and not set(now) & set(old)
    # Old workers stay until their streams are done; new requests must not have to wait for that.
    async def new_there():
        return set(server.worker_pids()) - set(old)
    await eventually(new_there, "a new worker")
    slowest = max([(await api.post("/runs/wait", run_of("echo", "x"),
                                   headers={"connection": "close"})).seconds for _ in range(20)])
    for received in await asyncio.gather(*tasks):
        ids = [int(event.id) for event in received]
        assert ids == sorted(set(ids)), "no event twice"
        assert len(received[-1].data["messages"]) == 2
        pieces = [text_of(event.data[0]) for event in received if event.name == "messages"]
        assert "".join(pieces) == text_of(received[-1].data["messages"][1]), "no event lost"
    done = time.monotonic()
    await eventually(replaced, "the old workers end", LEAVE_SECONDS)
    print(f"slowest other request {slowest:.3f} s, old workers gone "
          f"{time.monotonic() - done:.2f} s after their streams")
    return slowest


@stream_test
async def test_reload_with_streams_open(api, server):
    """The new workers serve, what the old ones had begun is brought to its end."""
    for _ in range(TRIES):
        if await reload_with_streams_open(api, server) < QUICK_SECONDS:
            return
    raise AssertionError("requests wait for the streams of the old workers")


@stream_test
async def test_a_reload_does_not_wait_for_a_reader_that_does_not_read(api, server):
    """It is cut in the middle of an event, and misses nothing when it comes back."""
    thread = await api.new_thread()
    path = f"/threads/{thread}/runs/stream"
    reader = await in_pool(SilentReader, server.url, path,
                           run_of("chain5", "x" * MB, stream_mode="values"))

    async def is_done():
        runs = (await api.get(f"/threads/{thread}/runs")).json
        return runs and runs[0]["status"] == "success" and runs[0]["run_id"]
    run_id = await eventually(is_done, "the run ends although nobody reads its stream", 60)
    old = set(server.worker_pids())
    os.kill(server.master_pid, signal.SIGHUP)

    async def replaced():
        now = set(server.worker_pids())
        return now and not now & old
    await eventually(replaced, "the old worker ends", LEAVE_SECONDS)
    _, stream = await in_pool(lambda: reader.read_all(whole=False))
    received = SseReader().feed(stream[:stream.rfind(b"\n\n") + 2])
    assert len(stream) < 5 * MB and received, "it had not read it all"
    received += await api.stream("GET", f"/threads/{thread}/runs/{run_id}/stream",
                                 headers={"last-event-id": received[-1].id})
    ids = [int(event.id) for event in received]
    assert ids == sorted(set(ids)), "no event twice"
    counts = [len(event.data["messages"]) for event in received if event.name == "values"]
    assert counts == [1, 2, 3, 4, 5, 6]


@stream_test
async def test_many_reloads_under_load(api, server):
    """Ten reloads while short runs flow: each of them is answered."""
    stop = asyncio.Event()
    counts = {"answered": 0}

    async def client():
        while not stop.is_set():
            answer = await api.post("/runs/wait", run_of("echo", "x"),
                                    headers={"connection": "close"})
            assert len(answer.json["messages"]) == 2
            counts["answered"] += 1
    tasks = [asyncio.create_task(client()) for _ in range(8)]
    for _ in range(10):
        old, answered = set(server.worker_pids()), counts["answered"]
        os.kill(server.master_pid, signal.SIGHUP)

        async def moved_on():
            return set(server.worker_pids()) - old and counts["answered"] > answered + 20
        await eventually(moved_on, "new workers serve", 30)
    stop.set()
    await asyncio.gather(*tasks)
    print(f"{counts['answered']} runs over ten reloads")


def test_messages_of_the_input_keep_their_form(server):
    """Blocks, ids, names and unusual characters survive the way through all parts."""
    messages = [human("𝄞 \u2028 \u0007 \" \\ / é", id="own-id", name="ann"),
                {"role": "user", "content": [{"type": "text", "text": "block"}]}]

    async def body():
        async with connect(server.url) as api:
            values = (await api.post("/runs/wait", {
                "assistant_id": "echo", "input": {"messages": messages}})).json["messages"]
            assert values[0]["content"] == messages[0]["content"]
            assert values[0]["id"] == "own-id" and values[0]["name"] == "ann"
            assert values[1]["content"] == messages[1]["content"]
    run(body())
