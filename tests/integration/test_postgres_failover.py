"""The primary dies under load and its synchronous standby is promoted: what was acknowledged is
there, once and in order, and the same engines serve again within seconds.

HEDDLE_FAILOVER_TRIALS=20 repeats it on a new pair of servers each time (default 1).
"""
import asyncio
import os
import time

import aiohttp
import pytest

from api_client import connect, eventually, run_of, text_of
from clusters import run
from harness import Cluster
from postgres_pair import PostgresPair

TRIALS = int(os.environ.get("HEDDLE_FAILOVER_TRIALS", "1"))
CLIENTS = 16
RESUMES_SECONDS = 5.0
TURNS_MIN = 10  # of each client before the primary dies


class Client:
    """One conversation. Its ledger: every text that it sent, and what it was told."""

    def __init__(self, api, number):
        self.api, self.number = api, number
        self.thread = None
        self.sent = []           # texts, in order
        self.acknowledged = []   # likewise
        self.last = 0.0          # monotonic time of sending what was acknowledged last

    async def talk(self, is_over):
        while not is_over.is_set():
            text = f"{self.number}.{len(self.sent)}"
            self.sent.append(text)
            begun = time.monotonic()
            try:
                answer = await self.api.post(f"/threads/{self.thread}/runs/wait",
                                             run_of("echo", text), want=None)
            except aiohttp.ClientError:
                continue
            if answer.status == 200:
                assert text in answer.text, (text, answer.text[-500:])
                self.acknowledged.append(text)
                self.last = begun

    async def check(self):
        messages = await self.api.thread_messages(self.thread)
        asked = [text_of(one) for one in messages if one["type"] == "human"]
        assert len(set(asked)) == len(asked), "something was carried out twice"
        lost = set(self.acknowledged) - set(asked)
        assert not lost, f"acknowledged and lost: {sorted(lost)}"
        places = {text: place for place, text in enumerate(self.sent)}
        acknowledged = set(self.acknowledged)
        in_order = [places[text] for text in asked if text in acknowledged]
        assert in_order == sorted(in_order)
        history = (await self.api.get(f"/threads/{self.thread}/history?limit=1000")).json
        ids = [entry["checkpoint"]["checkpoint_id"] for entry in history]
        parents = [(entry["parent_checkpoint"] or {}).get("checkpoint_id") for entry in history]
        assert parents[:-1] == ids[1:], "the history is one line"


async def fail_over(pair, api):
    clients = [Client(api, number) for number in range(CLIENTS)]
    for client in clients:
        client.thread = await api.new_thread()
    is_over = asyncio.Event()
    tasks = [asyncio.create_task(client.talk(is_over)) for client in clients]

    async def flows():
        return min(len(client.acknowledged) for client in clients) >= TURNS_MIN
    await eventually(flows, "the load flows")
    before = sum(len(client.acknowledged) for client in clients)
    pair.kill_primary()
    await asyncio.to_thread(pair.promote)
    promoted = time.monotonic()

    async def serves():
        failed = [task for task in tasks if task.done()]
        return failed or min(client.last for client in clients) > promoted
    await eventually(serves, "every conversation goes on after the promotion", 30.0)
    resumed = time.monotonic() - promoted
    is_over.set()
    await asyncio.gather(*tasks)
    for client in clients:
        await client.check()
    after = sum(len(client.acknowledged) for client in clients)
    unknown = sum(len(client.sent) - len(client.acknowledged) for client in clients)
    print(f"{after} acknowledged ({before} before), {unknown} without an answer, "
          f"every conversation goes on {resumed:.2f} s after the promotion")
    return resumed


@pytest.mark.parametrize("trial", range(TRIALS))
def test_failover_loses_nothing_that_was_acknowledged(tmp_path, trial):
    del trial

    async def body(pair, cluster):
        async with connect(cluster.url, total=60.0) as api:
            resumed = await fail_over(pair, api)
        assert resumed < RESUMES_SECONDS

    with PostgresPair() as pair:
        with Cluster(tmp_path, store=pair.url, engines=2, workers=2) as cluster:
            run(body(pair, cluster), seconds=100)
            cluster.check_clean()


def test_what_the_standby_does_not_have_yet_is_not_acknowledged(tmp_path):
    """A session that is ended while its commit waits for the standby has committed all the same, but
    only here: reading that back is no proof. The answer waits until the standby has it."""
    async def body(pair, cluster):
        async with connect(cluster.url, total=60.0) as api:
            thread = await api.new_thread()
            await api.post(f"/threads/{thread}/runs/wait", run_of("echo", "first"))
            pair.pause_standby()
            asked = asyncio.create_task(
                api.post(f"/threads/{thread}/runs/wait", run_of("echo", "second")))

            async def cut():
                return pair.primary.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                        "WHERE wait_event = 'SyncRep'") == "t"
            await eventually(cut, "a commit waits for the standby")

            async def reads_back():
                return pair.primary.ask("SELECT 1 FROM pg_stat_activity WHERE "
                                        "wait_event = 'SyncRep' AND query LIKE '%emit_message%'")
            await eventually(reads_back, "what became of it waits for the standby as well")
            assert not asked.done()
            pair.resume_standby()
            assert (await asked).status == 200
            asked = [text_of(one) for one in await api.thread_messages(thread)
                     if one["type"] == "human"]
            assert asked == ["first", "second"]

    with PostgresPair() as pair:
        with Cluster(tmp_path, store=pair.url, engines=2, workers=1) as cluster:
            run(body(pair, cluster), seconds=60)
            cluster.check_clean()
