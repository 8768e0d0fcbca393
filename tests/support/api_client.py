"""A small asynchronous client of the HTTP API for tests, and the checks that many tests share.

Nothing in here hides a failure: every call states the status that it expects, and a stream's bytes
are read by a strict parser of server-sent events that refuses what the SDKs would stumble over.
"""

import asyncio
import contextlib
import dataclasses
import json
import re
import time
import uuid

import aiohttp

UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
FINAL = ("success", "error", "timeout", "interrupted")
# LangGraph's assistant ids are UUIDv5 of the graph's name in this namespace.
ASSISTANT_NAMESPACE = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


@dataclasses.dataclass
class Reply:
    """One complete answer; `seconds` is from sending the request to its last byte."""

    status: int
    headers: dict
    body: bytes
    seconds: float

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")


@dataclasses.dataclass
class Event:
    name: str
    data: object
    id: str
    at: float  # time.monotonic() when its last byte arrived


class SseReader:
    """Parses one event stream. Blocks end with an empty line, comments may stand between lines."""

    def __init__(self):
        self._buffer = b""
        self._lines = []
        self.comments = 0

    def feed(self, chunk):
        """Returns the events that `chunk` completes."""
        self._buffer += chunk
        events = []
        while b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            text = line.decode("utf-8").rstrip("\r")
            if text.startswith(":"):
                self.comments += 1
            elif text:
                self._lines.append(text)
            elif self._lines:
                events.append(self._event())
        return events

    def at_end(self):
        """The stream is over: nothing may be left half written."""
        assert not self._buffer and not self._lines, (self._buffer, self._lines)

    def _event(self):
        fields = {"event": "", "id": None, "data": []}
        for line in self._lines:
            name, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if name == "data":
                fields["data"].append(value)
            elif name in ("event", "id", "retry"):
                fields[name] = value
            else:
                raise AssertionError(f"unknown field in event stream: {line!r}")
        self._lines = []
        # The SDKs' decoders throw on an event whose data is empty.
        assert "".join(fields["data"]), f"event {fields['event']!r} without data"
        data = json.loads("\n".join(fields["data"]))
        return Event(fields["event"], data, fields["id"], time.monotonic())


class Refused(AssertionError):
    """A stream that was answered with another status than 200; `retry_after` seconds, if it says."""

    def __init__(self, what, status, text, retry_after=None):
        super().__init__(f"{what}: {status} {text[:2000]}")
        self.status, self.text = status, text
        self.retry_after = None if retry_after is None else int(retry_after)


class Api:
    """Calls one server. Every request is of its own: nothing is retried."""

    def __init__(self, session, base_url):
        self.session = session
        self.base_url = base_url.rstrip("/")

    async def call(self, method, path, body=None, *, want=200, headers=None, data=None):
        """Sends `body` as JSON, or `data` as it is. `want`: a status, several, or None for any."""
        started = time.monotonic()
        sent = dict(headers or {})
        if body is not None:
            data = json.dumps(body).encode()
        if data is not None:
            sent.setdefault("content-type", "application/json")
        async with self.session.request(method, self.base_url + path, data=data,
                                        headers=sent) as response:
            answer = Reply(response.status, dict(response.headers), await response.read(),
                           time.monotonic() - started)
        answer.headers = {name.lower(): value for name, value in answer.headers.items()}
        if want is not None:
            wanted = want if isinstance(want, tuple) else (want,)
            assert answer.status in wanted, \
                f"{method} {path}: {answer.status}, expected {want}: {answer.text[:2000]}"
        return answer

    async def get(self, path, **options):
        return await self.call("GET", path, **options)

    async def post(self, path, body=None, **options):
        return await self.call("POST", path, body, **options)

    @contextlib.asynccontextmanager
    async def open_stream(self, method, path, body=None, *, headers=None):
        """Yields (response, async iterator of events); leaving closes the connection."""
        sent = dict(headers or {})
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        async with self.session.request(method, self.base_url + path, data=data,
                                        headers=sent) as response:
            if response.status != 200:
                raise Refused(f"{method} {path}", response.status, await response.text(),
                              response.headers.get("retry-after"))
            assert "text/event-stream" in response.headers["content-type"], response.headers
            try:
                yield response, _events(response)
            finally:
                response.close()

    async def stream(self, method, path, body=None, *, headers=None):
        """Reads a whole stream. Returns its events."""
        async with self.open_stream(method, path, body, headers=headers) as (_, events):
            return [event async for event in events]

    # ---- what nearly every test needs

    async def new_thread(self, **fields):
        return (await self.post("/threads", fields)).json["thread_id"]

    async def thread_messages(self, thread_id):
        state = (await self.get(f"/threads/{thread_id}/state")).json
        return state["values"].get("messages", [])

    async def run_status(self, thread_id, run_id):
        return (await self.get(f"/threads/{thread_id}/runs/{run_id}")).json["status"]

    async def wait_run(self, thread_id, run_id, seconds=30.0, statuses=FINAL):
        """Polls until the run's status is one of `statuses`; returns it."""
        async def reached():
            status = await self.run_status(thread_id, run_id)
            return status if status in statuses else None
        return await eventually(reached, f"run {run_id} in {statuses}", seconds)

    async def metrics(self):
        return parse_metrics((await self.get("/metrics")).text)


async def _events(response):
    reader = SseReader()
    async for chunk in response.content.iter_any():
        for event in reader.feed(chunk):
            yield event
    reader.at_end()


@contextlib.asynccontextmanager
async def connect(base_url, *, total=120.0):
    """An Api whose session has no bound on connections and a deadline on every request."""
    connector = aiohttp.TCPConnector(limit=0, force_close=False)
    timeout = aiohttp.ClientTimeout(total=total)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Api(session, base_url)


async def eventually(condition, what, seconds=20.0):
    """Awaits `condition()` until it gives something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)  # the pace of polling, not a wait for something to be over


def assistant_id(graph):
    return str(uuid.uuid5(ASSISTANT_NAMESPACE, graph))


def human(text, **more):
    return {"role": "user", "content": text, **more}


def run_of(assistant, text, **fields):
    """A RunCreate body with one human message."""
    return {"assistant_id": assistant, "input": {"messages": [human(text)]}, **fields}


def text_of(message):
    """A message's text, whether its content is a string or a list of blocks."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def is_error(reply, code=None, field=None):
    """Asserts the one form of every error: JSON with a detail, and a stable code."""
    assert reply.headers["content-type"].startswith("application/json"), \
        (reply.status, reply.headers, reply.text[:500])
    body = reply.json
    assert isinstance(body.get("detail"), str) and body["detail"], body
    assert isinstance(body.get("code"), str) and body["code"], body
    if code is not None:
        assert body["code"] == code, (reply.status, body)
    if field is not None:
        named = body["detail"] + " " + str(body.get("field", ""))
        assert field in named, f"the error does not name {field!r}: {body}"
    return body


def parse_metrics(text):
    """Prometheus text to {name: value}, samples of one name summed over their labels."""
    values = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.match(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})?\s+(\S+)", line)
        assert match, f"not an exposition line: {line!r}"
        values[match[1]] = values.get(match[1], 0.0) + float(match[2])
    return values


def check_chain(history):
    """Newest first: every entry's parent is the next one, ids fall, the last has no parent."""
    ids = [entry["checkpoint"]["checkpoint_id"] for entry in history]
    assert ids == sorted(ids, reverse=True) and len(set(ids)) == len(ids)
    for newer, older in zip(history, history[1:]):
        assert newer["parent_checkpoint"]["checkpoint_id"] == \
            older["checkpoint"]["checkpoint_id"]
    assert history[-1]["parent_checkpoint"] is None
