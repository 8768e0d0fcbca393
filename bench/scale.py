"""bench scale: what a long conversation costs, and a full store.

  long   one thread of 1,000 echo turns (about 400 KB of messages): its turns, the bytes written for
         a superstep, reading its state
  full   on Postgres, 1,000,000 threads in the store beside 1,000: turns of new threads and of old
         ones, reading a state, searching
"""
import http.client
import json
import statistics
import time
import uuid

import report
import stack
import turn

NAME = "scale"
LONG_TURNS = 1_000
FEW, MANY = 1_000, 1_000_000
QUICK_MANY = 20_000
OLD_THREADS = 200
BOUNDS = {"turn_1000_ms": ("<=", 1.2), "turn_1000_wal": ("<=", 1.2),
          "superstep_wal_kb": ("<=", 1.5), "state_load_ms": ("<=", 3.0)}
THREAD_COLUMNS = "epoch, head_seq, created_at, updated_at, status, metadata, interrupts, batch"
JOURNAL_COLUMNS = "seq, parent, base, created_at, checkpoint_id, run_id, step, head, data"
RUN_COLUMNS = ("created_at, updated_at, assistant_id, attempt, status, is_open, request_hash, "
               "multitask_strategy, error, metadata, kwargs")


def run(settings):
    cases = []
    for store in [name for name in settings.stores if name != "memory"]:
        with stack.Stack() as here:
            backends = turn.Backends(here, settings, store)
            try:
                cases += measure_long(backends, here)
                if store == "postgres":
                    cases += measure_full(backends, QUICK_MANY if settings.quick else MANY)
                backends.front.check_log()
            finally:
                if backends.postgres:
                    backends.postgres.close()
        print(f"{store}: done", flush=True)
    ratios = ratios_of(cases)
    show(cases, ratios)
    return {"cases": cases, "ratios": ratios}


# ---- long

def measure_long(backends, here):
    backends.settle()
    turns = LONG_TURNS // 10 if backends.settings.quick else LONG_TURNS
    thread, block = str(uuid.uuid4()), turns // 20
    bytes_first = written_by(backends, here, thread, block)
    latencies = timed(backends, here, thread, turns - 2 * block)
    bytes_last = written_by(backends, here, thread, block)
    latencies += timed(backends, here, thread, 50)
    rows = supersteps(backends, turns + 50)
    state = read_states(backends, [thread] * (20 if backends.settings.quick else 200))
    return [{"store": backends.store, "kind": "long", "turns": turns,
             "first_us": statistics.median(latencies[:20]),
             "last_us": statistics.median(latencies[-20:]),
             "first_bytes": bytes_first, "last_bytes": bytes_last, "supersteps": rows,
             "state_bytes": state["bytes"], "state_us": state["us"]}]


def timed(backends, here, thread, turns):
    """Microseconds of each turn, answered with what it changed."""
    file = here.folder / "latencies"
    backends.load("echo", "--sequence", "--requests", turns, "--latencies", file, thread=thread,
                  answer="updates")
    return [int(line) / 1000 for line in file.read_text().splitlines()]


def written_by(backends, here, thread, turns):
    before = backends.written_bytes()
    timed(backends, here, thread, turns)
    return (backends.written_bytes() - before) / turns


def supersteps(backends, turns):
    """Journal rows per turn; echo's are the input and its one node."""
    if backends.postgres is None:
        return None
    return int(backends.postgres.ask_heddle("SELECT max(seq) + 1 FROM heddle.journal")) / turns


class Client:
    """One connection, one request after another."""

    def __init__(self, backends):
        self._connection = http.client.HTTPConnection("127.0.0.1", backends.front.port, timeout=60)

    def ask(self, method, path, body=None):
        """(microseconds, bytes) of a right answer."""
        started = time.perf_counter()
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        got = answer.read()
        taken = (time.perf_counter() - started) * 1e6
        if answer.status != 200:
            raise stack.BenchError(f"{path} answers {answer.status} {got[:300]!r}")
        return taken, len(got)


def read_states(backends, threads):
    client = Client(backends)
    answers = [client.ask("GET", f"/threads/{thread}/state") for thread in threads]
    return {"us": statistics.median(taken for taken, _ in answers), "bytes": answers[-1][1]}


# ---- full

def measure_full(backends, many):
    cases = []
    for count in (FEW, many):
        fill(backends.postgres, count)
        threads = backends.postgres.ask_heddle(
            "SELECT string_agg(thread_id::text, ' ') FROM (SELECT thread_id FROM heddle.threads "
            f"WHERE thread_key < 0 ORDER BY random() LIMIT {2 * OLD_THREADS}) t").split()
        for agent in ("echo",):
            backends.load(agent, "--connections", 8, "--requests", 500)
        rounds = [turn.new_threads(backends, "echo", 64) for _ in range(backends.settings.rounds)]
        client = Client(backends)
        search = json.dumps({"limit": 10})
        old = [client.ask("POST", turn.path_of(thread), turn.body_of("echo"))[0]
               for thread in threads[:OLD_THREADS]]
        searches = [client.ask("POST", "/threads/search", search)[0] for _ in range(OLD_THREADS)]
        figures = report.median_of(rounds)
        cases.append({"store": "postgres", "kind": "full", "threads": count,
                      "rps": figures["rps"], "p50_us": figures["p50_us"],
                      "old_turn_us": statistics.median(old),
                      "state_us": read_states(backends, threads[OLD_THREADS:])["us"],
                      "search_us": statistics.median(searches)})
    return cases


def fill(postgres, count):
    """Brings the store to `count` copies of one thread with one echo turn, in rows of their own."""
    there = int(postgres.ask_heddle("SELECT count(*) FROM heddle.threads WHERE thread_key < 0"))
    model = postgres.ask_heddle(
        "SELECT thread_key FROM heddle.threads WHERE thread_key > 0 AND head_seq >= 0 "
        "ORDER BY head_seq LIMIT 1")
    for table, columns, extra in (
            ("threads", THREAD_COLUMNS, ("thread_id", "gen_random_uuid()")),
            ("journal", JOURNAL_COLUMNS, None),
            ("runs", RUN_COLUMNS, ("run_id", "gen_random_uuid()"))):
        more, value = (f", {extra[0]}", f", {extra[1]}") if extra else ("", "")
        postgres.ask_heddle(
            f"INSERT INTO heddle.{table} (thread_key, {columns}{more}) "
            f"SELECT -i, {columns.replace('created_at', 'created_at - i')}{value} "
            f"FROM heddle.{table}, generate_series({there + 1}, {count}) AS i "
            f"WHERE thread_key = {model}")
    for table in ("threads", "journal", "runs"):
        postgres.ask_heddle(f"VACUUM ANALYZE heddle.{table}")
    postgres.ask("CHECKPOINT")


# ---- figures

def ratios_of(cases):
    ratios = {}
    for case in [c for c in cases if c["kind"] == "long"]:
        suffix = "" if case["store"] == "postgres" else f"_{case['store']}"
        ratios[f"turn_1000_ms{suffix}"] = case["last_us"] / case["first_us"]
        ratios[f"turn_1000_wal{suffix}"] = case["last_bytes"] / case["first_bytes"]
        ratios[f"state_load_ms{suffix}"] = case["state_us"] / 1000
        if case["supersteps"]:
            ratios["superstep_wal_kb"] = case["last_bytes"] / case["supersteps"] / 1024
    full = [c for c in cases if c["kind"] == "full"]
    if full:
        few, many = full
        ratios["many_threads_rps"] = many["rps"] / few["rps"]
        for name in ("p50_us", "old_turn_us", "state_us", "search_us"):
            ratios[f"many_threads_{name[:-3]}"] = many[name] / few[name]
    return dict(sorted(ratios.items(), key=lambda item: (item[0] not in BOUNDS, item[0])))


def show(cases, ratios):
    rows = [[c["store"], c["turns"], c["first_us"], c["last_us"], c["first_bytes"],
             c["last_bytes"], c["supersteps"], c["state_bytes"], c["state_us"]]
            for c in cases if c["kind"] == "long"]
    print("\none thread, echo, answered with the step's changes; bytes per turn")
    print(report.table(["store", "turns", "first us", "last us", "first bytes", "last bytes",
                        "supersteps", "state bytes", "GET state us"], rows))
    rows = [[c["store"], c["threads"], c["rps"], c["p50_us"], c["old_turn_us"], c["state_us"],
             c["search_us"]] for c in cases if c["kind"] == "full"]
    if rows:
        print("\nthreads in the store; new threads at 64 in flight, the rest one at a time")
        print(report.table(["store", "threads", "new runs/s", "p50 us", "old thread's turn us",
                            "GET state us", "search us"], rows))
    print("\nratios (Postgres unless named):")
    print("\n".join(report.ratio_lines(ratios, BOUNDS)))
