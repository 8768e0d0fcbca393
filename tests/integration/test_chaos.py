"""Engines that die and stop, workers that are replaced and requests that are repeated, at random
moments and again and again. HEDDLE_TRIALS (2) says how often, HEDDLE_STREAMS (24) under how many
streams, whose runs make five steps of HEDDLE_STEP_SECONDS (0.3), HEDDLE_LEASE_MS (2000) when an engine
is given up, HEDDLE_ATTEMPTS_MAX (3) how often a run may be begun; HEDDLE_SEED makes it happen again."""

import asyncio
import contextlib
import os
import random
import signal
import statistics
import time
import uuid

import pytest

from api_client import Refused, check_chain, connect, eventually, run_of, text_of
from clusters import STEPS, run, slow_cluster
from follow import CUT, Follower
from harness import SHORT_LEASE_MS
from stalls import stop

TRIALS = int(os.environ.get("HEDDLE_TRIALS", "2"))
SEED = int(os.environ.get("HEDDLE_SEED", str(random.randrange(1 << 30))))
STREAMS = int(os.environ.get("HEDDLE_STREAMS", "24"))
STEP_SECONDS = float(os.environ.get("HEDDLE_STEP_SECONDS", "0.3"))
LEASE_MS = int(os.environ.get("HEDDLE_LEASE_MS", str(SHORT_LEASE_MS)))
ATTEMPTS_MAX = os.environ.get("HEDDLE_ATTEMPTS_MAX", "3")
GAP_SECONDS = 4.0
LEAVE_SECONDS = 5.0    # promised of an engine and of nginx's workers
GONE_SECONDS = 30.0    # where the machine stands still
REFUSED_MAX = 0.001    # of all runs: 503 with Retry-After, which SDKs send again
STILL_SECONDS = 1.0    # without an event of any stream: then it is the store or the machine
STILL_REFUSALS = 6     # of each client meanwhile
MODES = ["updates", "values", "messages-tuple"]


@contextlib.contextmanager
def chaos_cluster(folder, store, **options):
    print(f"HEDDLE_SEED={SEED} HEDDLE_TRIALS={TRIALS}")
    with slow_cluster(folder, store=store, latency=0.5, engines=2, workers=2, nginxes=2,
                      step_seconds=STEP_SECONDS, **options) as made:
        yield made
        made.check_clean()


@pytest.fixture(params=["sqlite", "postgres"])
def cluster(request, tmp_path):
    with chaos_cluster(tmp_path, request.param, lease_ms=LEASE_MS,
                       engine_options=["--attempts-max", ATTEMPTS_MAX]) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def patient(request, tmp_path):
    """Nobody is given up here, and whoever leaves has time to end a superstep."""
    options = ["--attempts-max", ATTEMPTS_MAX, "--drain-seconds", 20]
    with chaos_cluster(tmp_path, request.param, engine_options=options) as made:
        yield made


def check_steps(events, text):
    """Each step's event once and in order, whatever happened; tokens of a step at least once."""
    ids = [int(event.id) for event in events]
    assert ids == sorted(set(ids)), "each event once, in order"
    steps = [name for event in events if event.name == "updates" for name in event.data]
    assert steps == [f"step{number}" for number in range(1, STEPS + 1)]
    values = [event.data["messages"] for event in events if event.name == "values"]
    assert [len(one) for one in values] == list(range(1, STEPS + 2))
    assert text_of(values[-1][0]) == text
    attempts = [event.data["attempt"] for event in events if event.name == "metadata"]
    assert attempts == sorted(attempts)
    return len(attempts) - 1


class Streams:
    """Clients that stream one run after another, each on threads of its own."""

    def __init__(self, apis):
        self.apis = apis
        self.stopping = False
        self.begun_at = time.monotonic()
        self.gaps = []
        self.whole = 0
        self.repeated = 0
        self.refused = 0
        self.stalls = 0  # times in which no stream moved
        self._moved_at = self.begun_at
        self.threads = [None] * STREAMS  # each client's newest
        self._ended = [0] * STREAMS
        self._tasks = []

    async def __aenter__(self):
        self._tasks = [asyncio.create_task(self._client(n)) for n in range(STREAMS)]

        async def flows():
            self._raise()
            return self.whole >= STREAMS / 2
        await eventually(flows, "streams flow", 60)
        return self

    async def __aexit__(self, kind, *_):
        self.stopping = True
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        if kind is None:
            for one in done:
                if isinstance(one, BaseException):
                    raise one

    def _raise(self):
        for task in self._tasks:
            if task.done() and task.exception() is not None:
                raise task.exception()

    async def more(self, count):
        wanted = self.whole + count

        async def enough():
            self._raise()
            return self.whole >= wanted
        await eventually(enough, f"{count} more whole streams", 60)

    async def rest(self):
        """Every client's run of this moment ends; the threads of those runs."""
        threads, before = list(self.threads), list(self._ended)

        async def all_ended():
            self._raise()
            return all(now > then for now, then in zip(self._ended, before))
        await eventually(all_ended, "every run of this moment ends", 60)
        return threads

    async def check_threads(self, threads):
        """Nobody has written to them since: one chain of checkpoints, and the run's alone."""
        for thread in threads:
            with contextlib.suppress(*CUT):
                history = await self.apis[0].get(f"/threads/{thread}/history?limit=100")
                check_chain(history.json)
                assert len(history.json) == STEPS + 2, "input and start, then the steps"
                assert len(history.json[0]["values"]["messages"]) == STEPS + 1

    async def _client(self, number):
        api = self.apis[number % len(self.apis)]
        turn = 0
        while not self.stopping:
            turn += 1
            text = f"client {number} turn {turn}"
            thread = str(uuid.UUID(int=random.getrandbits(128), version=4))
            self.threads[number] = thread
            body = run_of("steps", text, stream_mode=MODES, if_not_exists="create")
            events = await self._follow(api, f"/threads/{thread}/runs/stream", body)
            self.repeated += check_steps(events, text)
            with contextlib.suppress(*CUT):
                messages = await api.thread_messages(thread)
                assert len(messages) == STEPS + 1, "the run happened once"
            self.whole += 1
            self._ended[number] += 1

    async def _follow(self, api, path, body):
        """One run's events, and the gaps between them."""
        last = time.monotonic()

        def see(event):
            nonlocal last
            assert event.name != "error", event.data
            self.gaps.append(event.at - last)
            last = event.at
            self.stalls += event.at - self._moved_at > STILL_SECONDS
            self._moved_at = event.at
        follower = Follower(api, path, body, key=path, on_event=see)
        while True:
            try:
                return await follower.whole()
            except Refused as refused:
                assert refused.status == 503, refused
                self.refused += 1
                await asyncio.sleep(refused.retry_after)

    def report(self, what):
        gaps = sorted(self.gaps)
        p99 = gaps[int(0.99 * len(gaps))]
        seconds = time.monotonic() - self.begun_at
        print(f"{what}: {self.whole} runs in {seconds:.0f} s, {self.repeated} steps begun again, "
              f"{self.refused} times 503, {self.stalls} stalls, gaps: "
              f"median {statistics.median(gaps):.3f} s, p99 {p99:.3f} s, longest {gaps[-1]:.3f} s")
        assert p99 < GAP_SECONDS
        # Where nothing moves no lease is renewed, and then nothing new is accepted.
        assert self.refused <= REFUSED_MAX * self.whole + STREAMS * STILL_REFUSALS * self.stalls


@contextlib.asynccontextmanager
async def clients(cluster):
    async with connect(cluster.urls[0]) as here, connect(cluster.urls[1]) as there:
        yield here, there


@contextlib.asynccontextmanager
async def streaming(cluster, what):
    """Streams that flow while the test does its worst."""
    async with clients(cluster) as apis:
        async with Streams(apis) as streams:
            yield streams
        streams.report(what)


def play(body):
    run(body(random.Random(SEED)), seconds=60 + 60 * TRIALS)


def test_killed_again_and_again(cluster):
    async def body(chance):
        async with streaming(cluster, f"{TRIALS} kills") as streams:
            for _ in range(TRIALS):
                victim = chance.choice(cluster.engines)
                victim.kill9()
                await streams.more(chance.randrange(STREAMS // 2))
                victim.start()
                await streams.more(STREAMS)
    play(body)


def test_stopped_again_and_again(cluster):
    async def body(chance):
        async with streaming(cluster, f"{TRIALS} stops") as streams:
            for _ in range(TRIALS):
                victim = chance.choice(cluster.engines)
                try:
                    await asyncio.to_thread(stop, cluster, victim)
                    threads = await streams.rest()
                finally:
                    os.kill(victim.pid, signal.SIGCONT)
                await streams.more(STREAMS)
                await streams.check_threads(threads)
    play(body)


async def timed(condition, what):
    """Waits for it; the seconds that it took."""
    asked = time.monotonic()

    async def holds():
        return condition()
    await eventually(holds, what, GONE_SECONDS)
    return time.monotonic() - asked


def test_told_to_leave_again_and_again(patient):
    async def body(chance):
        took = []
        async with streaming(patient, f"{TRIALS} departures") as streams:
            for _ in range(TRIALS):
                leaving = chance.choice(patient.engines)
                os.kill(leaving.pid, signal.SIGTERM)
                took.append(await timed(lambda: leaving.process.poll() is not None, "it ends"))
                leaving.start()
                await streams.more(STREAMS)
        print("gone after", *[f"{each:.2f}" for each in took], "s")
        assert min(took) < LEAVE_SECONDS
        assert streams.repeated == 0, "between supersteps nothing is begun again"
    play(body)


def test_reloaded_again_and_again(patient):
    async def body(chance):
        took = []
        async with streaming(patient, f"{2 * TRIALS} reloads") as streams:
            for _ in range(2 * TRIALS):
                edge = chance.choice(patient.edges)
                old = set(edge.worker_pids())
                await asyncio.to_thread(edge.reload)
                took.append(await timed(lambda: not old & set(edge.worker_pids()),
                                        "the old workers end"))
                await streams.more(STREAMS // 4)
        print("old workers gone after", *[f"{each:.2f}" for each in took], "s")
        assert statistics.median(took) < LEAVE_SECONDS
        assert streams.repeated == 0
    play(body)


def steps_of(events):
    return [(event.id, event.name, event.data) for event in events
            if event.name in ("values", "updates")]


async def post_of(kind, api, thread, agent, text, headers):
    """Sends one POST of this kind; what every repeat of it has to answer."""
    body = run_of(agent, text)
    if kind == "wait":
        return (await api.post(f"/threads/{thread}/runs/wait", body, headers=headers)).body.strip()
    if kind == "create":
        return (await api.post(f"/threads/{thread}/runs", body, headers=headers)).json["run_id"]
    if kind == "stream":
        body["stream_mode"] = ["values", "updates"]
        return steps_of(await api.stream("POST", f"/threads/{thread}/runs/stream", body,
                                         headers=headers))
    if kind == "chat":
        said = {"agent": agent, "thread_id": thread, "message": text}
        return (await api.post("/chat", said, headers=headers)).body.strip()
    if kind == "thread":
        made = await api.post("/threads", {"thread_id": thread, "if_exists": "do_nothing"})
        return made.json["thread_id"]
    assert kind == "stateless"
    return (await api.post("/runs/wait", body, headers=headers)).body.strip()


KINDS = ["wait", "wait", "create", "stream", "chat", "stateless", "thread"]


def test_every_post_is_repeated(patient):
    """Lost acknowledgements: 1 to 5 times the same POST, over two nginx, at random moments; most of
    them within the few milliseconds in which a run is looked up, executed and ended."""
    async def body(chance):
        async with clients(patient) as apis:
            async def one(number):
                kind = chance.choice(KINDS)
                thread = (str(uuid.UUID(int=chance.getrandbits(128), version=4))
                          if kind == "thread" else await chance.choice(apis).new_thread())
                headers = {"idempotency-key": f"key-{number}"}
                agent, within = chance.choice([("quick", 0.15), ("echo", 0.02), ("echo", 0.002),
                                               ("echo", 0.0)])

                async def send(after):
                    await asyncio.sleep(after)  # the random moment itself
                    return await post_of(kind, chance.choice(apis), thread, agent, f"n {number}",
                                         headers)
                answers = await asyncio.gather(*[send(chance.random() * within)
                                                 for _ in range(chance.randint(1, 5))])
                assert all(answer == answers[0] for answer in answers), (kind, answers)
                api = chance.choice(apis)
                if kind in ("stateless", "thread"):
                    await api.get(f"/threads/{thread}")
                    return
                if kind == "create":
                    await api.get(f"/threads/{thread}/runs/{answers[0]}/join")
                runs = (await api.get(f"/threads/{thread}/runs")).json
                assert [each["status"] for each in runs] == ["success"], kind
                assert len(await api.thread_messages(thread)) == 2, kind
            for base in range(0, 400 * TRIALS, 80):
                await asyncio.gather(*[one(base + number) for number in range(80)])
    play(body)
