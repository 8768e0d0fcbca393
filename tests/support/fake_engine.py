"""An engine that says what a test tells it to say, for tests of what nginx makes of it: the other end
of wire_client.py. shared/wire/README.md is the protocol; this answers hello and ping by itself, and
leaves the rest to the test.

    with FakeCluster(folder, engines=2) as cluster:
        engine = cluster.engines[0]
        … somebody asks cluster.url …
        asked = engine.take(REQUEST)
        engine.answer(asked.id, {"hello": 1})
"""
import collections
import dataclasses
import json
import threading
import time
import uuid

import msgpack
import zmq

from harness import Cluster
from local.processes import wait_until
from wire_client import (ACCEPTED, CREDIT, DATA, END, HEAD, HELLO, HELLO_WANTED, PING, PONG, REQUEST,
                         WELCOME)

SECONDS = 20.0
POLL_MS = 10
PONG_SECONDS = 0.3
EVENTS = ["content-type", b"text/event-stream"]
JSON = ["content-type", b"application/json"]


@dataclasses.dataclass
class Frame:
    kind: int
    id: int
    fields: dict


class FakeEngine:
    """One OS thread of its own speaks; every method may be called from any other."""

    process, killed = None, False  # as harness.Cluster wants to know of an engine

    def __init__(self, name, endpoint, frames_max):
        """@param frames_max  how many frames are read ahead of the test"""
        self.name = name
        self.endpoint = endpoint
        self._frames_max = frames_max
        self._os_thread = None
        self._forget()

    def _forget(self):
        self.engine_id = uuid.uuid4().hex
        self.frames = []        # all that came, but hello and ping
        self._taken = set()     # places in `frames`
        self._peers = {}        # request id: who asked
        self._out = collections.deque()
        self._stop = threading.Event()
        self._reads = threading.Event()
        self._reads.set()

    def start(self):
        """Also after stop(): then it is an engine that knows nothing of what was before."""
        self._forget()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.rcvhwm = self._frames_max
        self._socket.sndhwm = 0
        self._socket.bind(self.endpoint)
        self._os_thread = threading.Thread(target=self._serve, name=self.name)
        self._os_thread.start()

    begin = start

    def wait_ready(self):
        """It is, from its start."""

    def is_running(self):
        return self._os_thread is not None

    def stop(self):
        """Its connections end, as with an engine that was killed."""
        if self._os_thread is not None:
            self._stop.set()
            self._os_thread.join()
            self._os_thread = None
            self._socket.close()
            self._context.term()

    def stop_reading(self):
        """It still says that it lives."""
        self._reads.clear()

    def read_on(self):
        self._reads.set()

    # ---- what came

    def of(self, kind, request_id=None):
        return [frame for frame in list(self.frames)
                if frame.kind == kind and request_id in (None, frame.id)]

    def find(self, kind, request_id=None):
        """The first frame of that kind that was not taken before, or None."""
        for at, frame in enumerate(list(self.frames)):
            if at not in self._taken and frame.kind == kind and request_id in (None, frame.id):
                self._taken.add(at)
                return frame
        return None

    def take(self, kind, request_id=None):
        """The same, and waits for it."""
        return wait_until(lambda: self.find(kind, request_id), f"a frame of kind {kind} comes",
                          SECONDS)

    # ---- what it says

    def send(self, kind, request_id, fields):
        self._out.append((kind, request_id, fields))

    def accept(self, request_id, epoch):
        self.send(ACCEPTED, request_id, {1: epoch})

    def answer(self, request_id, value, *, epoch=0):
        """A whole answer in one frame."""
        self.send(HEAD, request_id, {1: epoch, 2: 200, 3: JSON, 4: json.dumps(value).encode(),
                                     5: True})

    def begin_stream(self, request_id, body=b"", *, epoch=0, headers=None):
        """The head of an event stream."""
        self.send(HEAD, request_id, {1: epoch, 2: 200, 3: headers or EVENTS, 4: body})

    def data(self, request_id, body, *, last=False):
        self.send(DATA, request_id, {1: body, 2: last})

    def end(self, request_id, error=None):
        self.send(END, request_id, {1: error} if error else {})

    def credit(self, request):
        """Bytes granted for it so far."""
        return request.fields[8] + sum(frame.fields[1] for frame in self.of(CREDIT, request.id))

    # ---- its OS thread

    def _serve(self):
        pong_at = 0.0
        known = set()
        while not self._stop.is_set():
            if self._reads.is_set() and self._socket.poll(POLL_MS if not self._out else 0):
                peer, raw = self._socket.recv_multipart()
                self._on_frame(known, peer, *msgpack.unpackb(raw, raw=True, strict_map_key=False))
            if not self._reads.is_set():
                self._stop.wait(POLL_MS / 1000)
                if time.monotonic() >= pong_at:
                    pong_at = time.monotonic() + PONG_SECONDS
                    for peer in known:
                        self._say(peer, PONG, 0, {2: self.engine_id})
            while self._out:
                kind, request_id, fields = self._out.popleft()
                self._say(self._peers[request_id], kind, request_id, fields)

    def _on_frame(self, known, peer, kind, request_id, fields):
        if kind == HELLO:
            known.add(peer)
            self._say(peer, WELCOME, 0, {1: 1, 2: self.engine_id, 3: self.endpoint})
        elif peer not in known:
            self._say(peer, HELLO_WANTED, 0, {})
        elif kind == PING:
            self._say(peer, PONG, 0, {1: fields.get(1, 0), 2: self.engine_id})
        else:
            if kind == REQUEST:
                self._peers[request_id] = peer
            self.frames.append(Frame(kind, request_id, fields))

    def _say(self, peer, kind, request_id, fields):
        self._socket.send_multipart([peer, msgpack.packb([kind, request_id, fields],
                                                         use_bin_type=True)])


class FakeCluster(Cluster):
    """nginx in front of engines of this kind. One worker, so that it is known who is asked what."""

    def __init__(self, folder, *, engines=1, frames_max=1000, location="", **options):
        """@param location  directives of `location /`"""
        self._frames_max = frames_max
        options.setdefault("workers", 1)
        options["nginx_server"] = f"location / {{ heddle_pass main; {location} }}\n" + \
            options.get("nginx_server", "")
        super().__init__(folder, engines=engines, store="memory", own_locations=True, **options)

    def make_engine(self, number):
        return FakeEngine(f"fake-{number}", f"ipc://{self.sockets}/fake-{number}.sock",
                          self._frames_max)

    def down(self):
        """Ends nginx, then the engines."""
        for edge in self.edges:
            edge.stop()
        self.end_engines()

    def end(self):
        self.end_engines()
        super().end()

    def end_engines(self):
        for engine in self.engines:
            engine.stop()

    def take(self, kind, request_id=None):
        """(engine, frame): the first of that kind that comes to any of them."""
        def found():
            for engine in self.engines:
                frame = engine.find(kind, request_id)
                if frame is not None:
                    return engine, frame
            return None
        return wait_until(found, f"a frame of kind {kind} comes", SECONDS)

    def engine_status(self):
        """What heddle_status says of each engine."""
        return self.edges[0].status()["pools"][0]["engines"]
