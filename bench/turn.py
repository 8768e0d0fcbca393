"""bench turn: what one durable agent turn costs, through nginx and heddle_pass.

  new    each run starts a thread of its own; 1, 8 and 64 in flight
  long   one thread gets 200 turns, one after another: does turn 200 cost what turn 1 did?
         answered with the whole conversation (`wait`) and with the step's changes (`updates`)
on the stores memory, sqlite and postgres, with the agents echo (one node) and chain5 (five).
With --peers also LangGraph.js with its Postgres saver and its server (peers.py).
"""
import http.client
import json
import pathlib
import statistics
import uuid

import peers
import profiling
import report
import stack

NAME = "turn"
TURNS = 200
BOUNDS = {"turn_200_ms": ("<=", 1.3), "turn_200_wal": ("<=", 1.3), **peers.BOUNDS}
RATES = {("postgres", "echo", 64): 8000, ("postgres", "chain5", 64): 3000}
MEDIANS_US = {("postgres", "echo", 1): 800}
EXPECT = {"wait": '"type":"ai"', "updates": "event: updates"}
MESSAGE = "Which day suits you for the appointment, and which of our two houses is nearer?"
FRONT = """
%(pool)s
    client_max_body_size 4m;
    server {
        listen 127.0.0.1:{port};
        location / { heddle_pass engines; heddle_read_timeout 60s; }
    }
"""


def body_of(agent, answer="wait"):
    body = {"assistant_id": agent, "if_not_exists": "create",
            "input": {"messages": [{"role": "user", "content": MESSAGE}]}}
    if answer == "updates":
        body["stream_mode"] = ["updates"]
    return json.dumps(body)


def path_of(thread, answer="wait"):
    return f"/threads/{thread}/runs/{'wait' if answer == 'wait' else 'stream'}"


class Backends:
    """Store, engines and front nginx for one store, and meters of what they use."""

    def __init__(self, here, settings, store):
        self.settings, self.store, self.postgres = settings, store, None
        urls = {"memory": "memory:", "sqlite": f"sqlite:{here.folder}/heddle.db"}
        if store == "postgres":
            self.postgres = stack.Postgres(here, bool(settings.profile))
            urls["postgres"] = self.postgres.url
        self.engines = stack.Engines(here, settings.build, settings.root, urls[store],
                                     settings.engines)
        self.front = stack.Nginx(here, "front", settings.workers,
                                 FRONT % {"pool": self.engines.pool("engines")}, settings.module)

    def written_bytes(self):
        """Postgres: WAL. SQLite: bytes the engines caused to be written to disk (database, WAL
        and shared-memory file, whole pages of the kernel's). None: the store writes nothing."""
        if self.postgres:
            return self.postgres.wal_bytes()
        if self.store != "sqlite":
            return None
        total = 0
        for pid in self.engines.pids:
            for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines():
                name, value = line.split(": ")
                total += int(value) if name == "write_bytes" else 0
        return total

    def groups(self):
        """The pids of each kind of process."""
        groups = {"engine": self.engines.pids, "nginx": self.front.workers()}
        if self.postgres:
            groups["postgres"] = stack.children(self.postgres.process.pid)
        return groups

    def cpu_seconds(self):
        return {name: sum(map(stack.cpu_of, pids)) for name, pids in self.groups().items()}

    def settle(self):
        """Brings the server to where one is that has run for a while: old segments of the log to
        write to (making one stops all writers for 50 ms), a checkpoint's distance begun anew, and
        the pages touched that each turn touches, so that no full-page images of theirs fall among
        the measured turns."""
        if self.postgres:
            megabytes = 16 if self.settings.quick else 600
            self.postgres.ask("SELECT count(pg_logical_emit_message(false, 'bench', repeat('x', "
                              f"1000000))) FROM generate_series(1, {megabytes})")
            self.postgres.ask("CHECKPOINT")
            self.postgres.ask("CHECKPOINT")
        for agent in self.settings.agents:
            self.load(agent, "--connections", 8, "--requests", 500)

    def load(self, agent, *options, thread="{uuid}", answer="wait"):
        return stack.run_load(self.settings.build, self.front.url(path_of(thread, answer)),
                              "--body", body_of(agent, answer), "--expect", EXPECT[answer],
                              *options)


def run(settings):
    """Measures; returns {"cases": [...], "ratios": {...}} and prints both."""
    cases, ceiling = [], []
    for store in settings.stores:
        with stack.Stack() as here:
            backends = Backends(here, settings, store)
            try:
                sizes = {agent: probe(backends, agent) for agent in settings.agents}
                ceiling = ceiling or measure_ceilings(here, settings, sizes)
                others = start_peers(backends, here)
                cases += measure_long(backends, here)
                cases += measure_new(backends, others)
                if others:
                    others.measure_long(TURNS)
                    cases += others.cases()
                if settings.profile:
                    profile_turns(backends)
                backends.front.check_log()
            finally:
                if backends.postgres:
                    backends.postgres.close()
        print(f"{store}: done", flush=True)
    ratios = ratios_of(cases)
    show(cases, ceiling, ratios)
    return {"cases": cases + ceiling, "ratios": ratios}


def start_peers(backends, here):
    """What to measure beside Heddle on its Postgres; None if that is not asked for."""
    if backends.postgres is None or backends.settings.peers is None:
        return None
    return peers.Peers(here, backends.settings, backends.postgres, MESSAGE, body_of)


def probe(backends, agent):
    """One turn, looked at closely; the bytes of its answer."""
    with Client(backends.front.port) as client:
        body = client.turn(str(uuid.uuid4()), agent)
    messages = json.loads(body)["messages"]
    if [m["type"] for m in messages][:2] != ["human", "ai"]:
        raise stack.BenchError(f"{agent} answers {body[:400]!r}")
    return len(body)


class Client:
    """One connection, one turn after another."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self._connection.close()

    def turn(self, thread, agent):
        self._connection.request("POST", path_of(thread), body_of(agent),
                                 {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200 or b'"type":"ai"' not in body:
            raise stack.BenchError(f"{agent} answers {answer.status} {body[:400]!r}")
        return body


def measure_ceilings(here, settings, sizes):
    """What the generator reaches with the same requests if the answer costs nothing."""
    locations = "".join(stack.ceiling_http(f"/{agent}/", size) for agent, size in sizes.items())
    nginx = stack.Nginx(here, "ceiling", settings.workers, f"""
    server {{
        listen 127.0.0.1:{{port}};{locations}
    }}""")
    cases = []
    for agent in settings.agents:
        for connections in settings.in_flight:
            result = stack.run_load(
                settings.build, nginx.url(f"/{agent}/{{uuid}}"), "--body", body_of(agent),
                "--connections", connections, "--duration", min(2, settings.seconds))
            cases.append({"store": "(return 200)", "agent": agent, "kind": "ceiling",
                          "in_flight": connections, "body_bytes": sizes[agent],
                          **report.parse_heddle_load(result)})
    here.stop(nginx.process)
    return cases


def measure_new(backends, others=None):
    """The rounds; in each of them the others, if any, take their turn after us."""
    settings, rounds, plain = backends.settings, {}, {}
    for _ in range(settings.rounds):
        for connections in settings.in_flight if backends.postgres else ():
            plain.setdefault(connections, []).append(
                backends.postgres.one_row(connections, settings.seconds / 3))
        for agent in settings.agents:
            for connections in settings.in_flight:
                rounds.setdefault((agent, connections), []).append(
                    new_threads(backends, agent, connections))
        if others:
            others.measure_round()
    return [{"store": backends.store, "agent": agent, "kind": "new", "in_flight": connections,
             "engines": settings.engines, "rounds": settings.rounds, **report.median_of(figures)}
            for (agent, connections), figures in rounds.items()] + [
        {"store": backends.store, "agent": "(one row)", "kind": "one_row",
         "in_flight": connections, **report.median_of(figures)}
        for connections, figures in plain.items()]


def new_threads(backends, agent, connections):
    before, cpu = backends.written_bytes(), backends.cpu_seconds()
    images = backends.postgres.full_page_images() if backends.postgres else 0
    result = backends.load(agent, "--connections", connections, "--warmup", 0.5,
                           "--duration", backends.settings.seconds)
    figures = report.parse_heddle_load(result)
    turns = result["answered_all"]
    if before is not None:
        figures["written_bytes"] = (backends.written_bytes() - before) / turns
    if backends.postgres:
        figures["full_page_images"] = (backends.postgres.full_page_images() - images) / turns
    for name, seconds in backends.cpu_seconds().items():
        figures[f"cpu_us_{name}"] = (seconds - cpu[name]) * 1e6 / turns
    return figures


def profile_turns(backends):
    """Samples new threads at the lowest and highest number in flight, and a thread that is long
    already; for Postgres also which statements took the time."""
    settings = backends.settings
    for agent in settings.agents:
        label = f"turn-{backends.store}-{agent}"
        for connections in (settings.in_flight[0], settings.in_flight[-1]):
            file = settings.profile / f"{label}-{connections}-statements.txt"

            def start_new(agent=agent, connections=connections, file=file):
                count_statements(backends, None)
                new_threads(backends, agent, connections)
                count_statements(backends, file)
            profiling.record(settings.profile, f"{label}-{connections}", backends.groups(),
                             start_new, settings.callers)
        threads = [str(uuid.uuid4()) for _ in range(min(5, settings.long_threads))]
        for thread in threads:
            backends.load(agent, "--sequence", "--requests", TURNS, thread=thread)

        def go_on(agent=agent, threads=threads):
            for thread in threads:
                backends.load(agent, "--sequence", "--requests", TURNS // 2, thread=thread)
        profiling.record(settings.profile, f"{label}-long", backends.groups(), go_on,
                         settings.callers)


def count_statements(backends, file):
    """Begins to count (no file), or writes down what was counted."""
    if backends.postgres is None:
        return
    if file is None:
        backends.postgres.ask("SELECT pg_stat_statements_reset()")
    else:
        file.write_text("\n".join(backends.postgres.what_took_time()) + "\n")


def measure_long(backends, here):
    backends.settle()
    cases = []
    for agent in backends.settings.agents:
        for answer in EXPECT:
            series = [long_latencies(backends, here, agent, answer)
                      for _ in range(backends.settings.long_threads)]
            written = []
            if answer == "wait" and backends.store != "memory":
                written = [long_written(backends, agent)
                           for _ in range(min(3, backends.settings.long_threads))]
            cases.append(long_case(backends, agent, answer, series, written))
    return cases


def long_latencies(backends, here, agent, answer):
    """Microseconds of each of the turns of one thread, back to back."""
    file = here.folder / "latencies"
    backends.load(agent, "--sequence", "--requests", TURNS, "--latencies", file,
                  thread=str(uuid.uuid4()), answer=answer)
    return [int(line) / 1000 for line in file.read_text().splitlines()]


def long_written(backends, agent):
    """Bytes written for each of the turns of another thread: read before and after each, which
    takes time, so that no latency is measured here."""
    thread, series = str(uuid.uuid4()), []
    with Client(backends.front.port) as client:
        for _ in range(TURNS):
            before = backends.written_bytes()
            client.turn(thread, agent)
            series.append(backends.written_bytes() - before)
    return series


def long_case(backends, agent, answer, series, written):
    middle = statistics.median
    every = sorted(latency for one in series for latency in one)
    case = {"store": backends.store, "agent": agent, "kind": "long", "answer": answer,
            "in_flight": 1, "engines": backends.settings.engines, "threads": len(series),
            "rps": 1e6 * len(every) / sum(every), "p50_us": middle(every),
            "p99_us": every[int(0.99 * len(every))],
            "first_us": middle(middle(one[:10]) for one in series),
            "last_us": middle(middle(one[-10:]) for one in series),
            "growth_ms": middle(report.growth(one) for one in series)}
    if written:
        case.update({"written_bytes": middle(middle(one) for one in written),
                     "first_bytes": middle(middle(one[:10]) for one in written),
                     "last_bytes": middle(middle(one[-10:]) for one in written),
                     "growth_bytes": middle(report.growth(one) for one in written)})
    return case


def ratios_of(cases):
    """turn_200_* is echo on Postgres, answered in full; the others carry their names."""
    ratios = {}
    for case in [c for c in cases if c["kind"] == "long"]:
        plain = (case["store"], case["agent"]) == ("postgres", "echo")
        suffix = "" if plain else f"_{case['agent']}_{case['store']}"
        answer = "" if case["answer"] == "wait" else f"_{case['answer']}"
        ratios[f"turn_200_ms{answer}{suffix}"] = case["growth_ms"]
        if "growth_bytes" in case:
            ratios[f"turn_200_wal{suffix}"] = case["growth_bytes"]
    ratios.update(one_row_ratios(cases))
    ratios.update(peers.ratios_of(cases))
    return dict(sorted(ratios.items(), key=lambda item: (item[0] not in BOUNDS, item[0])))


def one_row_ratios(cases):
    """An echo turn through HTTP over one row inserted by pgbench: latency and rate."""
    ratios = {}
    for row in [c for c in cases if c["kind"] == "one_row"]:
        for echo in cases:
            if (echo["kind"], echo["store"], echo["agent"], echo["in_flight"]) == (
                    "new", row["store"], "echo", row["in_flight"]):
                ratios[f"one_row_p50_{row['in_flight']}"] = echo["p50_us"] / row["p50_us"]
                ratios[f"one_row_rate_{row['in_flight']}"] = echo["rps"] / row["rps"]
    return ratios


def show(cases, ceiling, ratios):
    rows = [[c["store"], c["agent"], c["in_flight"], c["rps"], c["p50_us"], c["p99_us"],
             c.get("written_bytes"), c.get("cpu_us_engine"), c.get("cpu_us_nginx"),
             c.get("cpu_us_postgres"),
             100 * c["generator_cpu"] if "generator_cpu" in c else None]
            for c in [c for c in cases if c["kind"] in ("new", "one_row")] + ceiling]
    print("\na new thread for each run; bytes and processor time are per turn")
    print(report.table(["store", "agent", "in flight", "runs/s", "p50 us", "p99 us", "bytes",
                        "engine us", "nginx us", "postgres us", "generator %"], rows))
    rows = [[c["store"], c["agent"], c["answer"], c["first_us"], c["last_us"], c["growth_ms"],
             c.get("first_bytes"), c.get("last_bytes"), c.get("growth_bytes")]
            for c in cases if c["kind"] == "long"]
    print(f"\none thread of {TURNS} turns; medians of turns 1-10 and {TURNS - 9}-{TURNS}")
    print(report.table(["store", "agent", "answer", "first us", "last us", "ratio",
                        "first bytes", "last bytes", "ratio"], rows))
    peers.show(cases)
    print("\nratios (echo on Postgres unless named):")
    print("\n".join(report.ratio_lines(ratios, BOUNDS)))
    for case in [c for c in cases if c["kind"] == "new"]:
        key = (case["store"], case["agent"], case["in_flight"])
        name = f"{case['agent']} on {case['store']}, {case['in_flight']} in flight"
        if wanted := RATES.get(key):
            verdict = "met" if case["rps"] >= wanted else "MISSED"
            print(f"  {name}: {case['rps']:,.0f} runs/s   target >= {wanted:,}: {verdict}")
        if wanted := MEDIANS_US.get(key):
            verdict = "met" if case["p50_us"] <= wanted else "MISSED"
            print(f"  {name}: p50 {case['p50_us']:,.0f} us   target <= {wanted:,}: {verdict}")
