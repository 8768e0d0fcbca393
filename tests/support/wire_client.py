"""One peer of an engine's ROUTER socket, for tests that must look at one engine without nginx, or
that send what no nginx would. shared/wire/README.md is the protocol; this is not a second
implementation of it: only what those tests need."""

import itertools
import time
import uuid

import msgpack
import zmq

HELLO, PING, REQUEST, BODY, CREDIT, CANCEL = range(1, 7)
WELCOME, PONG, HELLO_WANTED, ACCEPTED, HEAD, DATA, END, MOVED, REFUSED = range(33, 42)
CREDIT_BYTES = 1 << 20


class WireError(AssertionError):
    pass


class WireClient:
    """Speaks as an edge of its own. Every wait has a deadline (seconds)."""

    def __init__(self, endpoint, *, hello=True, seconds=10.0):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(endpoint)
        self._seconds = seconds
        self._ids = itertools.count(1)
        self.edge_id = uuid.uuid4().hex
        self.engine_id = None
        if hello:
            self.hello()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._socket.close()
        self._context.term()

    def hello(self):
        self.send(HELLO, 0, {1: 1, 2: 1, 3: self.edge_id})
        self.engine_id = self.receive(WELCOME)[2][2].decode()

    def send(self, kind, request_id, fields):
        self.send_raw(msgpack.packb([kind, request_id, fields], use_bin_type=True))

    def send_raw(self, *parts):
        self._socket.send_multipart(list(parts))

    def receive(self, *kinds, seconds=None):
        """Returns (kind, request id, fields) of the next frame of one of `kinds`; skips others."""
        deadline = time.monotonic() + (seconds or self._seconds)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not self._socket.poll(int(left * 1000) + 1):
                raise WireError(f"no frame of kinds {kinds} from the engine")
            kind, request_id, fields = msgpack.unpackb(self._socket.recv(), raw=True,
                                                       strict_map_key=False)
            if kind in kinds:
                return kind, request_id, fields
            if kind in (REFUSED, MOVED):
                raise WireError(f"the engine answered kind {kind}: {fields}")

    def ping(self):
        sequence = next(self._ids)
        self.send(PING, 0, {1: sequence})
        while True:
            _, _, fields = self.receive(PONG)
            if fields.get(1, 0) == sequence:
                return fields

    def request(self, method, path, body=b"", *, query=b"", headers=(), seconds=None, run_id=None,
                hop=0, accepted=False):
        """One whole request. Returns (status, body). `hop` and `accepted`: as an edge repeats it."""
        request_id = next(self._ids)
        flat = [part for pair in headers for part in pair]
        self.send(REQUEST, request_id, {1: method, 2: path.encode(), 3: query, 4: flat,
                                        8: CREDIT_BYTES, 10: body,
                                        **({6: run_id} if run_id else {}),
                                        **({9: hop} if hop else {}),
                                        **({12: True} if accepted else {})})
        return self.answer(request_id, seconds=seconds)

    def answer(self, request_id, *, seconds=None):
        status, received = None, b""
        while True:
            kind, got, fields = self.receive(HEAD, DATA, END, seconds=seconds)
            if got != request_id:
                continue
            if kind == END:
                return status, received
            if kind == HEAD:
                status = fields.get(2, 200)
                received, last = fields.get(4, b""), fields.get(5, False)
            else:
                piece, last = fields.get(1, b""), fields.get(2, False)
                received += piece
                self.send(CREDIT, request_id, {1: len(piece)})
            if last:
                return status, received
