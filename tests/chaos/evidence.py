"""What is there when the storm is over: threads and streams as the API gives them, and the tables."""
import asyncio
import dataclasses
import time

from api_client import Refused, eventually, text_of
from clients import STEP_EVENTS, digest
from follow import CUT

AT_ONCE = 16
SETTLE_SECONDS = 60.0
HISTORY_MAX = 1000  # what the API gives at once
OPEN_RUNS = "SELECT count(*) FROM heddle.runs WHERE is_open"


@dataclasses.dataclass
class Thread:
    messages: list  # (id, type, text)
    count: int
    history: list   # (checkpoint id, parent's or None), newest first
    runs: dict      # id -> status


@dataclasses.dataclass
class Tables:
    """Rows as lists of what is named here; absent values are None."""

    threads: list    # key, id, epoch, head
    journal: list    # key, seq, parent, base, checkpoint, run
    runs: list       # key, id, status, is_open, attempt
    ownership: list  # number, at, session, key, is_claim, epoch before, epoch, owner before, owner,
    #                  head before, head
    endings: list    # number, at, session, run, what, status


@dataclasses.dataclass
class Evidence:
    operations: list
    threads: dict   # id -> Thread
    replays: dict   # run -> [(id, name, digest)] of the events of its supersteps
    tables: Tables
    strikes: list   # what Strike.as_json() gives
    logs: list = dataclasses.field(default_factory=list)   # lines that must not be there
    exits: list = dataclasses.field(default_factory=list)  # processes that ended by themselves
    not_resumed: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0  # of load


async def settle(stack):
    """Until no run waits or executes. Returns how long that took."""
    begun = time.monotonic()

    async def is_settled():
        return await asyncio.to_thread(stack.pair.primary.ask, OPEN_RUNS, True, "heddle") == "0"
    await eventually(is_settled, "every run ends", SETTLE_SECONDS)
    return time.monotonic() - begun


async def read_thread(api, thread_id):
    path = f"/threads/{thread_id}"
    state = (await api.get(f"{path}/state")).json
    history, before = [], None
    while True:
        page = (await api.post(f"{path}/history",
                               {"limit": HISTORY_MAX} | ({"before": before} if before else {}))).json
        history += [(entry["checkpoint"]["checkpoint_id"],
                     (entry["parent_checkpoint"] or {}).get("checkpoint_id")) for entry in page]
        if len(page) < HISTORY_MAX:
            break
        before = history[-1][0]
    runs = (await api.get(f"{path}/runs?limit=1000")).json
    values = state["values"]
    return Thread([(one["id"], one["type"], text_of(one)) for one in values.get("messages", [])],
                  values.get("count", 0), history, {run["run_id"]: run["status"] for run in runs})


async def _replay(api, thread_id, run_id):
    events = await api.stream("GET", f"/threads/{thread_id}/runs/{run_id}/stream")
    return [(event.id, event.name, digest(event.data)) for event in events
            if event.name in STEP_EVENTS]


async def _gather(wanted, read, failed):
    """{key: what read(key) gives}, a few at once; whatever cannot be read is told by `failed`."""
    found, left = {}, list(wanted)

    async def work():
        while left:
            key = left.pop()
            try:
                found[key] = await read(key)
            except (AssertionError, Refused, *CUT) as error:
                failed(key, error)
    await asyncio.gather(*[work() for _ in range(AT_ONCE)])
    return found


def typed(rows, *kinds):
    """psql's texts to values: `int`, `bool`, `float` or `str`."""
    convert = {int: int, float: float, str: str, bool: lambda text: text == "t"}
    return [[None if text == "\\N" else convert[kind](text)
             for text, kind in zip(row, kinds, strict=True)] for row in rows]


def read_tables(stack):
    seconds = "extract(epoch FROM at)"
    return Tables(
        typed(stack.sql("SELECT thread_key, thread_id, epoch, head_seq FROM heddle.threads"),
              int, str, int, int),
        typed(stack.sql("SELECT thread_key, seq, parent, base, checkpoint_id, run_id "
                        "FROM heddle.journal ORDER BY thread_key, seq"),
              int, int, int, int, str, str),
        typed(stack.sql("SELECT thread_key, run_id, status, is_open, attempt FROM heddle.runs"),
              int, str, int, bool, int),
        typed(stack.sql(f"SELECT id, {seconds}, session, thread_key, is_claim, epoch_before, epoch, "
                        "owner_before, owner, head_before, head FROM chaos.ownership ORDER BY id"),
              int, float, str, int, bool, int, int, str, str, int, int),
        typed(stack.sql(f"SELECT id, {seconds}, session, run_id, what, status FROM chaos.endings "
                        "ORDER BY id"), int, float, str, str, str, int))


async def gather(stack, api, record, strikes):
    """Reads everything. What cannot be read is missing, and the checker says so."""
    problems = []

    def failed(key, error):
        problems.append(f"reading {key}: {error!r}"[:500])
    threads = await _gather({each.thread for each in record.operations},
                            lambda thread: read_thread(api, thread), failed)
    of_run = {each.run: each.thread for each in record.operations if each.events and each.run}
    replays = await _gather(of_run, lambda run: _replay(api, of_run[run], run), failed)
    tables = await asyncio.to_thread(read_tables, stack)
    return Evidence(record.operations, threads, replays, tables, strikes, not_resumed=problems)
