"""The load, and its record: clients that append to threads and count, each in its own way, and write
down what they were told. Nothing here judges; checker.py does.

    wait    POST …/runs/wait, two clients on each thread
    repeat  the same POST several times at once, as if acknowledgements were lost
    stream  POST …/runs/stream, taken up again by Last-Event-ID when it is cut
    join    POST …/runs, then one reader joins and one streams

Every request of an operation carries one Idempotency-Key, so it may be sent again. Some clients lose
patience in the middle of a request, and some give an operation up: what became of it is unknown then.
"""
import asyncio
import dataclasses
import hashlib
import json
import random
import time
import uuid

from api_client import Refused, connect, run_of
from follow import CUT, Follower

KINDS = {"wait": 6, "repeat": 2, "stream": 6, "join": 4}
AGENTS = {"wait": "tally", "repeat": "tally", "stream": "relay", "join": "relay"}
REPLIES = {"tally": 1, "relay": 3}        # messages that a run adds to its human one
TURNS_MAX = {"tally": 24, "relay": 6}     # runs of a thread, then the next
ON_ONE_THREAD = {"wait": 2}               # clients that share one; else each has its own
MODES = ["updates", "values", "messages-tuple"]
STEP_EVENTS = ("updates", "values")       # each exactly once, whatever dies
REQUEST_SECONDS = 15.0
IMPATIENT_SECONDS = (0.05, 1.0)
IMPATIENT, GIVES_UP = 0.1, 0.05           # probabilities
OPERATION_SECONDS = 60.0
PAUSE_SECONDS = (0.02, 0.3)               # before a request is sent again
THINK_SECONDS = 0.15
TRANSIENT = ("unavailable", "overloaded", "timeout", "draining")  # the stream's, not the run's
FAILED = (*CUT, asyncio.TimeoutError)


def digest(value):
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass
class Operation:
    """One message that a client wanted to be appended, and what it was told about it."""

    client: int
    kind: str
    agent: str
    thread: str
    key: str
    text: str
    begun: float
    ended: float = 0.0
    # acknowledged: its answer came; failed: it came, and told of an error; refused: 4xx;
    # unknown: given up
    outcome: str = "unknown"
    run: str = ""          # id, once the client was told
    sends: int = 0
    cuts: int = 0          # of its stream
    statuses: list = dataclasses.field(default_factory=list)  # other than 200
    problem: str = ""
    count: int = -1        # the counter in its answer
    messages: int = -1     # in its answer, and a digest of their ids
    messages_digest: str = ""
    answers: list = dataclasses.field(default_factory=list)  # digests; all must be equal
    events: list = dataclasses.field(default_factory=list)   # (id, name, digest) of its stream
    whole: bool = False    # the stream was read to its end


class Record:
    """What all clients did."""

    def __init__(self):
        self.operations = []
        self.failures = []      # (time, reason) of every request that brought no answer
        self.last_begun = {}    # client -> when what was acknowledged last had begun

    def failed(self, reason):
        self.failures.append((time.time(), reason))

    def done(self, operation):
        self.operations.append(operation)
        if operation.outcome == "acknowledged":
            self.last_begun[operation.client] = operation.begun

    def acknowledged(self):
        return [each for each in self.operations if each.outcome == "acknowledged"]


class Conversation:
    """The thread that some clients append to; another one after so many runs."""

    def __init__(self, agent, chance):
        self._agent, self._chance = agent, chance
        self._turns = 0
        self._thread = None

    def thread(self):
        if self._turns % TURNS_MAX[self._agent] == 0:
            self._thread = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        self._turns += 1
        return self._thread


class Client:
    def __init__(self, number, kind, api, conversation, record, seed):
        self.number, self.kind = number, kind
        self._api, self._conversation, self._record = api, conversation, record
        self._chance = random.Random(f"{seed} client {number}")
        self._sent = 0

    async def run(self, is_over):
        while not is_over.is_set():
            await self._operate()
            await asyncio.sleep(self._chance.random() * THINK_SECONDS)

    async def _operate(self):
        self._sent += 1
        text = f"{self.kind} {self.number}.{self._sent}"
        operation = Operation(self.number, self.kind, AGENTS[self.kind],
                              self._conversation.thread(), text, text, time.time())
        deadline = time.monotonic() + OPERATION_SECONDS
        send = getattr(self, f"_{self.kind}")
        reader = Reader(self._api, self._record, operation)
        while True:
            operation.sends += 1
            try:
                await asyncio.wait_for(send(operation, reader), self._patience())
            except FAILED as problem:
                self._record.failed("timeout" if isinstance(problem, asyncio.TimeoutError)
                                    else "cut")
            if reader.is_done() or time.monotonic() > deadline \
                    or self._chance.random() < GIVES_UP:
                break
            await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))
        operation.ended = time.time()
        operation.events = reader.events()
        self._record.done(operation)

    def _patience(self):
        if self._chance.random() < IMPATIENT:
            return self._chance.uniform(*IMPATIENT_SECONDS)
        return REQUEST_SECONDS

    def _body(self, operation, **fields):
        return run_of(operation.agent, operation.text, if_not_exists="create", **fields)

    async def _post(self, operation, route):
        return await self._api.post(f"/threads/{operation.thread}/runs{route}",
                                    self._body(operation), want=None,
                                    headers={"idempotency-key": operation.key})

    async def _wait(self, operation, reader):
        reader.answered(await self._post(operation, "/wait"))

    async def _repeat(self, operation, reader):
        async def one(after):
            await asyncio.sleep(after)  # the random moment itself
            reader.answered(await self._post(operation, "/wait"))
        copies = [one(self._chance.random() * 0.1) for _ in range(self._chance.randint(2, 5))]
        done = await asyncio.gather(*copies, return_exceptions=True)
        for problem in done:
            if isinstance(problem, BaseException):
                raise problem

    async def _stream(self, operation, reader):
        body = self._body(operation, stream_mode=MODES)
        await reader.follow(f"/threads/{operation.thread}/runs/stream", body)

    async def _join(self, operation, reader):
        if not operation.run:
            reply = await self._api.post(f"/threads/{operation.thread}/runs",
                                         self._body(operation, stream_mode=MODES), want=None,
                                         headers={"idempotency-key": operation.key})
            if reply.status != 200:
                reader.not_answered(reply.status, reply.text)
                return
            operation.run = reply.json["run_id"]
        path = f"/threads/{operation.thread}/runs/{operation.run}"

        async def join():
            if operation.outcome == "unknown":
                reader.answered(await self._api.get(f"{path}/join", want=None))
        both = [asyncio.create_task(join()),
                asyncio.create_task(reader.follow(None, None, f"{path}/stream"))]
        try:
            await asyncio.gather(*both)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)


class Reader:
    """Turns the answers of one operation into its record."""

    def __init__(self, api, record, operation):
        self._api, self._record, self._operation = api, record, operation
        self._follower = None

    def is_done(self):
        """Nothing is left to be asked."""
        operation = self._operation
        if operation.outcome == "acknowledged":
            return self._follower is None or operation.whole
        return operation.outcome != "unknown"

    def answered(self, reply):
        if reply.status != 200:
            self.not_answered(reply.status, reply.text)
            return
        location = reply.headers.get("content-location", "")
        if location:
            self._operation.run = location.strip("/").split("/")[3]
        self._answer(json.loads(reply.body), reply.body.strip())

    def not_answered(self, status, text):
        self._record.failed(str(status))
        self._operation.statuses.append(status)
        if 400 <= status < 500:
            self._operation.outcome = "refused"
            self._operation.problem = f"{status} {text[:300]}"

    def _answer(self, values, whole=b""):
        operation = self._operation
        operation.answers.append(hashlib.sha256(whole).hexdigest()[:16])
        if "__error__" in values:
            operation.outcome = "failed"
            operation.problem = json.dumps(values["__error__"])
            return
        operation.outcome = "acknowledged"
        operation.count = values["count"]
        operation.messages = len(values["messages"])
        operation.messages_digest = digest([one["id"] for one in values["messages"]])

    async def follow(self, path, body, location=None):
        """To the end of the stream; what came before stays when this is called again."""
        if self._operation.whole:
            return
        if self._follower is None:
            self._follower = Follower(self._api, path, body, key=self._operation.key,
                                      location=location)
        follower = self._follower
        problem = None
        try:
            await follower.attempt()
        except Refused as refused:
            self.not_answered(refused.status, refused.text)
            return
        except CUT as cut:
            problem = cut
        finally:
            self._operation.cuts = follower.cuts
            if follower.received:
                self._operation.run = follower.received[0].data["run_id"]
        if follower.received and follower.received[-1].name == "error":
            self._failed(follower.received.pop())
            return
        if problem is not None:
            raise problem
        self._operation.whole = True
        values = [event for event in follower.received if event.name == "values"]
        if values and body is not None:
            self._answer(values[-1].data)

    def _failed(self, event):
        # The stream cannot go on. The run may end well all the same: then the reader asks again.
        code = event.data.get("error")
        self._record.failed(f"error event: {code}")
        self._operation.problem = json.dumps(event.data)[:300]
        if code not in TRANSIENT:
            self._operation.outcome = "failed"

    def events(self):
        if self._follower is None:
            return []
        return [(event.id, event.name, digest(event.data)) for event in self._follower.received]


class Load:
    """All clients, while the block lasts; `record` stays."""

    def __init__(self, url, seed, kinds=None):
        """@param kinds  how many clients of each kind; unset: KINDS"""
        self.record = Record()
        self._seed, self._kinds = seed, kinds or KINDS
        self._is_over = asyncio.Event()
        self._connection = connect(url, total=REQUEST_SECONDS * 2)
        self._tasks = []
        self.clients = []

    async def __aenter__(self):
        api = await self._connection.__aenter__()
        number = 0
        for kind, count in self._kinds.items():
            shared = ON_ONE_THREAD.get(kind, 1)
            for index in range(count):
                if index % shared == 0:
                    conversation = Conversation(AGENTS[kind],
                                                random.Random(f"{self._seed} {kind} {index}"))
                number += 1
                self.clients.append(Client(number, kind, api, conversation, self.record,
                                           self._seed))
        self._tasks = [asyncio.create_task(client.run(self._is_over)) for client in self.clients]
        return self

    async def __aexit__(self, *problem):
        self._is_over.set()
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.__aexit__(None, None, None)
        if problem[0] is None:
            for one in done:
                if isinstance(one, BaseException):
                    raise one

    def look(self):
        """Raises what a client's task ended with."""
        for task in self._tasks:
            if task.done() and task.exception() is not None:
                raise task.exception()

    def behind(self, moment):
        """Numbers of the clients without an acknowledged operation that began after `moment`."""
        return [client.number for client in self.clients
                if self.record.last_begun.get(client.number, 0.0) <= moment]
