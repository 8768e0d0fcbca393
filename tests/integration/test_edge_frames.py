"""What nginx makes of engines whose frames no real engine sends on demand: those of one that has lost
the thread, of one that does not read, and of one that comes when the client has left. The engines
are of tests/support/fake_engine.py."""
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.parse

import pytest

from fake_engine import JSON, FakeCluster
from local.processes import wait_until
from silent_reader import SilentReader
from wire_client import CANCEL, REFUSED, REQUEST

SECONDS = 20.0
STILL_SECONDS = 3.0     # without anything sent: there is no room, and it is not the machine
LEAVE_SECONDS = 30.0    # the worker has 3 s; what kept it was a timeout of minutes
THREAD = "01890a5d-ac96-774b-bcce-b302099a8057"
STREAM = f"/threads/{THREAD}/runs/stream"
RUN = {"assistant_id": "echo", "input": {}}
METHOD, HEADERS, RUN_ID, HOP, BODY, IS_ACCEPTED = 1, 4, 6, 9, 10, 12
DETACH = 1


def event(number, text=""):
    return f'event: values\ndata: "{text}"\nid: {number}\n\n'.encode()


def header_of(request, name):
    names = request.fields[HEADERS]
    return dict(zip(names[::2], names[1::2])).get(name)


def is_idle(cluster):
    return all(engine["in_flight"] == 0 for engine in cluster.engine_status())


# ---- engines that have lost the thread


def handed_on(cluster, epoch):
    """A wait that one engine has accepted and given up. Returns the client, and the next engine with
    what it was asked."""
    client = SilentReader(cluster.url, "/runs/wait", RUN)
    first, asked = cluster.take(REQUEST)
    first.accept(asked.id, epoch)
    first.send(REFUSED, asked.id, {1: "unavailable"})
    second, again = cluster.take(REQUEST)
    assert second is not first and again.fields[IS_ACCEPTED] is True
    return client, second, again


def test_an_answer_of_an_older_epoch_is_looked_for_elsewhere(tmp_path):
    with FakeCluster(tmp_path, engines=2) as cluster:
        client, stale, asked = handed_on(cluster, 5)
        stale.answer(asked.id, {"from": "stale"}, epoch=4)
        owner, again = cluster.take(REQUEST)
        assert again.fields[IS_ACCEPTED] is True
        assert again.fields[RUN_ID] == asked.fields[RUN_ID]
        assert again.fields[HOP] == asked.fields[HOP] + 1
        owner.accept(again.id, 6)
        owner.answer(again.id, {"from": "owner"}, epoch=6)
        head, body = client.read_all()
        assert " 200 " in head.splitlines()[0] and json.loads(body) == {"from": "owner"}
        assert stale.find(CANCEL) is None, "it has said its last"
        assert sum(engine["frames_dropped"] for engine in cluster.engine_status()) == 1


def test_an_answer_of_the_same_epoch_is_the_answer(tmp_path):
    with FakeCluster(tmp_path, engines=2) as cluster:
        client, second, asked = handed_on(cluster, 5)
        second.answer(asked.id, {"from": "second"}, epoch=5)
        assert json.loads(client.read_all()[1]) == {"from": "second"}


@pytest.mark.parametrize("accepts", [False, True])
def test_a_stream_of_an_older_epoch_is_passed_over(tmp_path, accepts):
    """The client gets one stream, without a trace of the engine that did not know."""
    with FakeCluster(tmp_path, engines=2) as cluster:
        client = SilentReader(cluster.url, STREAM, RUN)
        first, asked = cluster.take(REQUEST)
        first.accept(asked.id, 5)
        first.begin_stream(asked.id, event(1), epoch=5)
        first.data(asked.id, event(2))
        first.end(asked.id, "unavailable")

        stale, asked = cluster.take(REQUEST)
        assert stale is not first
        if accepts:
            stale.accept(asked.id, 4)
        stale.begin_stream(asked.id, event(3, "stale"), epoch=4)
        stale.data(asked.id, event(4, "stale"))
        assert stale.take(CANCEL, asked.id).fields.get(DETACH) is True, "its run is not cancelled"
        stale.data(asked.id, event(5, "stale"))
        stale.end(asked.id)

        owner, asked = cluster.take(REQUEST)
        assert header_of(asked, b"last-event-id") == b"2"
        owner.accept(asked.id, 6)
        owner.begin_stream(asked.id, event(3), epoch=6)
        owner.end(asked.id)
        assert client.read_all()[1] == event(1) + event(2) + event(3)


# ---- clients that leave while no engine has their run


class H2Client:
    """The same over HTTP/2, in a process of its own."""

    def __init__(self, url, path, body):
        self._process = subprocess.Popen(
            [shutil.which("curl"), "--silent", "--no-buffer", "--http2-prior-knowledge",
             "--header", "content-type: application/json", "--data-binary", json.dumps(body),
             "--include", url + path], stdout=subprocess.PIPE)

    def receive(self):
        return self._process.stdout.read(1)

    def close(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


class H1Client(SilentReader):
    def receive(self):
        return self.socket.recv(1)


@contextlib.contextmanager
def left_alone(folder, path, *, h2=False, engines=1):
    """A run is accepted, its engine dies, its client leaves. Yields the cluster, its engine, which
    does not run, and what it was asked."""
    with FakeCluster(folder, engines=engines) as cluster:
        engine = cluster.engines[0]
        client = (H2Client(cluster.h2_url, path, RUN) if h2 else H1Client(cluster.url, path, RUN))
        asked = engine.take(REQUEST)
        engine.accept(asked.id, 1)
        if path == STREAM:
            engine.begin_stream(asked.id, event(1), epoch=1)
        else:
            engine.begin_stream(asked.id, b"\n", epoch=1, headers=JSON)
        assert client.receive(), "the response has begun"
        engine.stop()
        wait_until(lambda: cluster.engine_status()[0]["state"] == "down" and is_idle(cluster),
                   "nginx knows that it is dead", SECONDS)
        leave(cluster, client)
        yield cluster, engine, asked


def leave(cluster, client):
    def told():
        return cluster.edges[0].error_log.read_text().count("prematurely closed connection")
    before = told()
    client.close()
    wait_until(lambda: told() > before, "nginx knows that the client has left", SECONDS)


def check_cancelled(cluster, engine, asked, epoch=2):
    engine.accept(asked.id, epoch)
    cancel = engine.take(CANCEL, asked.id)
    assert not cancel.fields.get(DETACH), "it is the client who has left"
    wait_until(lambda: is_idle(cluster), "nothing is left of it", SECONDS)
    assert engine.find(REQUEST) is None


@pytest.mark.parametrize("h2", [False, True])
@pytest.mark.parametrize("path", ["/runs/wait", STREAM])
def test_a_client_that_leaves_between_engines_cancels_at_the_next(tmp_path, path, h2):
    with left_alone(tmp_path, path, h2=h2) as (cluster, engine, before):
        engine.start()
        asked = engine.take(REQUEST)
        assert asked.fields[IS_ACCEPTED] is True
        assert [asked.fields[field] for field in (METHOD, RUN_ID, BODY)] == \
            [before.fields[field] for field in (METHOD, RUN_ID, BODY)]
        assert engine.find(CANCEL) is None, "not before the engine has the run"
        check_cancelled(cluster, engine, asked)


def test_a_cancel_goes_on_past_an_engine_that_refuses_the_run(tmp_path):
    with left_alone(tmp_path, STREAM) as (cluster, engine, _):
        engine.start()
        asked = engine.take(REQUEST)
        engine.send(REFUSED, asked.id, {1: "overloaded"})
        check_cancelled(cluster, engine, engine.take(REQUEST))


def test_a_client_that_leaves_before_the_next_engine_has_the_run_cancels_it(tmp_path):
    """The request is there, the lease of the dead engine has not passed, the client leaves."""
    with FakeCluster(tmp_path, engines=2) as cluster:
        client, second, asked = handed_on(cluster, 5)
        leave(cluster, client)
        assert second.find(CANCEL) is None
        second.send(REFUSED, asked.id, {1: "unavailable"})
        check_cancelled(cluster, *cluster.take(REQUEST), epoch=6)


def test_a_run_that_has_ended_meanwhile_needs_no_cancel(tmp_path):
    with left_alone(tmp_path, STREAM) as (cluster, engine, _):
        engine.start()
        asked = engine.take(REQUEST)
        engine.answer(asked.id, {"code": "conflict"})
        wait_until(lambda: is_idle(cluster), "nothing is left of it", SECONDS)
        client = SilentReader(cluster.url, "/runs/wait", RUN)
        engine.answer(engine.take(REQUEST).id, {"answer": 1})
        assert json.loads(client.read_all()[1]) == {"answer": 1}
        assert engine.find(CANCEL) is None


def test_a_cancel_that_nobody_takes_does_not_hold_a_worker_back(tmp_path):
    with left_alone(tmp_path, STREAM) as (cluster, _, _):
        check_leaves(cluster)


# ---- engines that do not read

BODIES, BODY_BYTES = 24, 2 << 20  # more than the 16 MB that may wait for one engine
SMALL, SMALL_BYTES = 5200, 850    # more than the 4 MB for frames of at most 1024 bytes


def small_requests(url):
    """Clients with requests that fill the room for small frames, and more of them than it holds."""
    target = urllib.parse.urlsplit(url)
    fill = "x" * SMALL_BYTES
    clients = []
    for number in range(SMALL):
        client = socket.create_connection((target.hostname, target.port))
        client.sendall(f"GET /threads/{number} HTTP/1.1\r\nhost: h\r\nx-fill: {fill}\r\n\r\n".encode())
        clients.append(client)
    return clients


def test_cancels_are_not_lost_for_lack_of_room(tmp_path):
    """An engine that stands still: its queue fills up, its clients leave, it goes on."""
    with FakeCluster(tmp_path, frames_max=1,
                     location="heddle_connect_timeout 60s; client_body_buffer_size 4m;") as cluster:
        (engine,) = cluster.engines
        engine.stop_reading()
        clients = [SilentReader(cluster.url, "/runs/wait", {"input": "x" * BODY_BYTES})
                   for _ in range(BODIES)]
        clients += small_requests(cluster.url)
        seen = {"requests": 0, "at": time.monotonic()}

        def is_full():
            (status,) = cluster.engine_status()
            assert status["state"] == "up"
            if status["requests"] != seen["requests"]:
                seen.update(requests=status["requests"], at=time.monotonic())
            return seen["requests"] > BODIES and time.monotonic() - seen["at"] > STILL_SECONDS
        wait_until(is_full, "nothing more can be sent to it", 60)
        for client in clients:
            client.close()
        wait_until(lambda: is_idle(cluster), "nginx knows that they have left", SECONDS)
        sent = cluster.engine_status()[0]["requests"]
        assert sent < BODIES + SMALL, "there was room for all of them"
        engine.read_on()

        def all_cancelled():
            asked = {frame.id for frame in engine.of(REQUEST)}
            return len(asked) == sent and \
                asked == {frame.id for frame in engine.of(CANCEL)}
        wait_until(all_cancelled, "every request that came is cancelled", 60)
        assert cluster.engine_status()[0]["failures"] == 0


# ---- workers that leave


def check_leaves(cluster):
    (edge,) = cluster.edges
    old = set(edge.worker_pids())
    edge.reload()
    wait_until(lambda: not old & set(edge.worker_pids()), "the old worker ends", LEAVE_SECONDS)


def fill(engine, asked):
    """Sends events until the client takes no more. Returns how many."""
    piece = event(10, "x" * (32 << 10))
    sent = 0
    stalled_at = time.monotonic()

    def is_stalled():
        nonlocal sent, stalled_at
        if engine.credit(asked) - sent * len(piece) >= 2 * len(piece):
            sent += 1
            engine.data(asked.id, piece)
            stalled_at = time.monotonic()
        return time.monotonic() - stalled_at > STILL_SECONDS
    wait_until(is_stalled, "the client takes no more", 60)
    return sent


@pytest.mark.parametrize("where", ["in the middle of an event", "between two events", "at its end"])
def test_a_stream_that_nobody_reads_does_not_hold_a_worker_back(tmp_path, where):
    with FakeCluster(tmp_path, location="send_timeout 10m; heddle_read_timeout 10m;") as cluster:
        (engine,) = cluster.engines
        client = SilentReader(cluster.url, STREAM, RUN)
        asked = engine.take(REQUEST)
        engine.accept(asked.id, 1)
        engine.begin_stream(asked.id, event(1), epoch=1)
        sent = fill(engine, asked)
        if where == "in the middle of an event":
            engine.data(asked.id, event(11)[:-10])
        elif where == "at its end":
            engine.end(asked.id)
            wait_until(lambda: is_idle(cluster), "nginx knows its end", SECONDS)
        check_leaves(cluster)
        if where == "at its end":
            # What stands still for seconds is taken for dead, and told so.
            excuses = "it is silent" in cluster.edges[0].error_log.read_text()
            assert engine.find(CANCEL) is None or excuses
        else:
            cancel = engine.take(CANCEL, asked.id)
            assert cancel.fields.get(DETACH) is True, "the client comes back"
        _, body = client.read_all(whole=False)
        assert 0 < body.count(b"\n\n") < sent + 1 and body.startswith(event(1))


def test_a_stream_that_stops_in_the_middle_of_an_event_does_not_hold_a_worker_back(tmp_path):
    """It is the engine that is slow; the client gets what there is, and no end of an event."""
    with FakeCluster(tmp_path, location="heddle_read_timeout 10m;") as cluster:
        (engine,) = cluster.engines
        client = SilentReader(cluster.url, STREAM, RUN)
        asked = engine.take(REQUEST)
        engine.accept(asked.id, 1)
        engine.begin_stream(asked.id, event(1) + event(2)[:-10], epoch=1)
        check_leaves(cluster)
        assert engine.take(CANCEL, asked.id).fields.get(DETACH) is True
        assert client.read_all(whole=False)[1] == event(1) + event(2)[:-10]
