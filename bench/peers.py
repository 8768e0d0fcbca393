"""bench turn --peers: LangGraph.js with its Postgres saver, and the LangGraph JavaScript server,
measured in the same run as Heddle; the saver on the same Postgres cluster.

Their code is in bench/peers/, their packages below build/peers/ (peer_packages.py); whatever a
measurement writes lies in the benchmark's temporary folder and the cluster.
"""
import contextlib
import http.client
import json
import os
import pathlib
import signal
import statistics
import subprocess
import time
import uuid

import report
import stack

SAVER, SERVER = "LangGraph.js saver", "LangGraph.js server"
DATABASE = "langgraph"
IN_FLIGHT = 64
STEPS = {"echo": 1, "chain5": 5}
# Node compiles its hot code while it runs: what is measured begins when it has done so.
WARMUP_SECONDS = 4
LONG_THREADS, LONG_SECONDS = 5, 900
# Tried briefly before the rounds; what is fastest is measured.
SAVER_CHOICES = [(1, 4), (1, 10), (1, 32), (2, 5), (2, 16)]  # processes, connections of each
SERVER_CHOICES = [10, 64]  # --n-jobs-per-worker; it ships with 10
BOUNDS = {"peers_turns_64": (">=", 18), "peers_wal_200": (">=", 50)}


def check_settings(settings):
    """Why these settings leave out what the peers are compared with; None if they do not."""
    if ("postgres" in settings.stores and {"echo", "chain5"} <= set(settings.agents)
            and {1, IN_FLIGHT} <= set(settings.in_flight)):
        return None
    return "--peers needs the store postgres, the agents echo and chain5, and 1 and 64 in flight"


class Saver:
    """LangGraph.js with its Postgres saver, without HTTP."""

    def __init__(self, here, settings, postgres, message):
        self._settings, self._postgres, self._message = settings, postgres, message
        self._folder = settings.peers.project(here.folder, "saver")
        postgres.ask(f"CREATE DATABASE {DATABASE}")
        self._run([{"mode": "setup"}], stack.START_SECONDS)

    def _run(self, each, seconds):
        """Runs one process for each of these options, together; their results."""
        common = {"message": self._message, "postgres": {
            "host": str(self._postgres.folder), "user": "heddle", "database": DATABASE}}
        command = [self._settings.peers.node, self._folder / "saver.mjs"]
        processes = [subprocess.Popen(
            command + [json.dumps({**common, **options})], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
            for options in each]
        deadline, results = time.monotonic() + seconds, []
        try:
            for process in processes:
                out, fault = process.communicate(timeout=max(0, deadline - time.monotonic()))
                if process.returncode != 0:
                    raise stack.BenchError(f"{SAVER}: {fault.strip()}")
                results.append(json.loads(out))
        except subprocess.TimeoutExpired:
            raise stack.BenchError(f"{SAVER}: not within {seconds} s") from None
        finally:
            for process in processes:
                process.kill()
                process.wait()
                process.stdout.close()
                process.stderr.close()
        return results

    def new_threads(self, processes, pool):
        """Five-node turns, 64 at once in all, each in a new thread."""
        seconds = self._settings.seconds
        begin = time.time() + WARMUP_SECONDS
        before, cpu = self._postgres.wal_bytes(), self._cpu_seconds()
        results = self._run([
            {"mode": "new", "pool": pool, "in_flight": IN_FLIGHT // processes,
             "from": 1000 * begin, "to": 1000 * (begin + seconds)}] * processes,
            WARMUP_SECONDS + seconds + stack.START_SECONDS)
        turns = sum(result["turns"] for result in results)
        written, cpu = self._postgres.wal_bytes() - before, self._cpu_seconds() - cpu
        latencies = sorted(us for result in results for us in result["latencies_us"])
        if not latencies:
            raise stack.BenchError(f"{SAVER}: no turn ended within {seconds} s")
        return {"rps": len(latencies) / seconds, "requests": len(latencies),
                "p50_us": statistics.median(latencies),
                "p99_us": latencies[int(0.99 * len(latencies))],
                "written_bytes": written / turns, "cpu_us_postgres": cpu * 1e6 / turns,
                "cpu_us_node": statistics.mean(result["cpu_us"] for result in results)}

    def _cpu_seconds(self):
        """Of Postgres, whose sessions end with the process that opened them."""
        pid = self._postgres.process.pid
        return stack.cpu_of(pid, with_ended=True) + sum(map(stack.cpu_of, stack.children(pid)))

    def long_threads(self, turns, pool):
        """One thread to that many turns, one after another: several for the time, then for WAL."""
        self._postgres.ask("CHECKPOINT")
        threads = min(LONG_THREADS, self._settings.long_threads)
        options = {"mode": "long", "pool": pool, "turns": turns}
        (timed,) = self._run([{**options, "threads": threads}], LONG_SECONDS)
        (metered,) = self._run([{**options, "threads": min(3, threads), "meter": True}],
                               LONG_SECONDS)
        middle = statistics.median
        return {"store": "postgres", "agent": "chain5", "kind": "peer_long", "peer": SAVER,
                "threads": threads, "turns": turns,
                "first_us": middle(middle(one[:10]) for one in timed["series"]),
                "last_us": middle(middle(one[-10:]) for one in timed["series"]),
                "first_bytes": middle(middle(one[:10]) for one in metered["series"]),
                "last_bytes": middle(middle(one[-10:]) for one in metered["series"])}


class Server:
    """The LangGraph JavaScript server as `langgraphjs dev` starts it, in memory."""

    def __init__(self, here, settings, jobs):
        self._here, self._settings = here, settings
        self.port = stack.free_port()
        folder = settings.peers.project(here.folder, f"server-{self.port}")
        # The command wants to add a line to this file, and says so, if it is not in there.
        (folder / ".gitignore").write_text(".langgraph_api\n")
        cli = folder / "node_modules/@langchain/langgraph-cli/dist/cli/cli.mjs"
        self._process, self._log = here.start(f"server-{self.port}", [
            settings.peers.node, cli, "dev", "--no-browser", "--host", "127.0.0.1", "--port",
            self.port, "--n-jobs-per-worker", jobs, "--config", folder / "langgraph.json"],
            env=environment())

    def __enter__(self):
        try:
            stack.wait_until(lambda: stack.answers(self.port), SERVER, self._process, self._log)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, value, trace):
        """Ends the command and what it started: a watcher, the server itself and a compiler. The
        command ends before they do, and its successor must not share the processors with them."""
        pids = family(self._process.pid)
        self._here.stop(self._process)
        for pid in reversed(pids):
            end(pid)

    def check(self, agent, body):
        """One turn, looked at closely."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", f"/threads/{uuid.uuid4()}/runs/wait", body,
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        messages = json.loads(text).get("messages", []) if answer.status == 200 else []
        if [m["type"] for m in messages] != ["human"] + ["ai"] * STEPS[agent]:
            raise stack.BenchError(f"{SERVER}: {agent} answers {answer.status} {text[:400]!r}")

    def load(self, body, connections, seconds):
        pids = family(self._process.pid)
        cpu = sum(map(stack.cpu_of, pids))
        result = stack.run_load(
            self._settings.build, f"http://127.0.0.1:{self.port}/threads/{{uuid}}/runs/wait",
            "--body", body, "--expect", '"type": "ai"', "--connections", connections,
            "--warmup", WARMUP_SECONDS, "--duration", seconds)
        cpu = sum(map(stack.cpu_of, pids)) - cpu
        return {**report.parse_heddle_load(result),
                "cpu_us_node": cpu * 1e6 / result["answered_all"]}


def environment():
    """The benchmark's own, without what would make a peer talk to anything beyond loopback or
    spend time on its log."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("LANGSMITH_", "LANGCHAIN_", "LANGGRAPH_"))}
    return {**kept, "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false",
            "NODE_ENV": "production", "LOG_LEVEL": "error", "BROWSER": "none"}


def family(pid):
    """A process and its descendants."""
    try:
        return [pid] + [other for child in stack.children(pid) for other in family(child)]
    except OSError:
        return []  # it has just ended


def runs(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def end(pid):
    """Ends a process that is not our child any more; by force if it does not within the time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + stack.STOP_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        while runs(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not runs(pid):
            return
    raise stack.BenchError(f"process {pid} of the {SERVER} does not end")


class Peers:
    """Both peers: chosen at the start, measured in each round beside Heddle, then to 200 turns."""

    def __init__(self, here, settings, postgres, message, body_of):
        self._here, self._settings, self._body_of = here, settings, body_of
        self._saver = Saver(here, settings, postgres, message)
        self._rounds, self._cases = {}, []
        quick = settings.quick
        self._choice = best(SAVER_CHOICES[1:2] if quick else SAVER_CHOICES,
                            lambda choice: self._saver.new_threads(*choice), "{} x pool {}")
        self._jobs = best(SERVER_CHOICES[:1] if quick else SERVER_CHOICES, lambda jobs: (
            self._serve("echo", IN_FLIGHT, jobs)), "{} jobs")

    def _serve(self, agent, connections, jobs):
        """A server of its own for each measurement: it gets slower with each run it remembers."""
        # A turn takes it about half a second, so that one client needs longer for a median.
        seconds = self._settings.seconds * (3 if connections == 1 else 1)
        with Server(self._here, self._settings, jobs) as server:
            server.check(agent, self._body_of(agent))
            return server.load(self._body_of(agent), connections, seconds)

    def measure_round(self):
        self._keep(SAVER, "postgres", "chain5", IN_FLIGHT, self._saver.new_threads(*self._choice))
        for agent in STEPS:
            for connections in (1, IN_FLIGHT):
                self._keep(SERVER, "(memory)", agent, connections,
                           self._serve(agent, connections, self._jobs))

    def _keep(self, *what):
        *key, figures = what
        self._rounds.setdefault(tuple(key), []).append(figures)

    def measure_long(self, turns):
        self._cases.append(self._saver.long_threads(turns, self._choice[1]))

    def cases(self):
        cases = [{"store": store, "agent": agent, "kind": "peer", "peer": peer,
                  "in_flight": connections, "rounds": len(figures),
                  **({"processes": self._choice[0], "pool": self._choice[1]} if peer == SAVER
                     else {"jobs_per_worker": self._jobs}), **report.median_of(figures)}
                 for (peer, store, agent, connections), figures in self._rounds.items()]
        return cases + self._cases


def best(choices, measure, label):
    """The choice with the most turns per second; says what was tried."""
    rates = {choice: measure(choice)["rps"] for choice in choices}
    chosen = max(rates, key=rates.get)
    tried = ", ".join(f"{describe(label, choice)}: {rate:.0f}/s" for choice, rate in rates.items())
    print(f"tried {tried}; measured: {describe(label, chosen)}", flush=True)
    return chosen


def describe(label, choice):
    return label.format(*(choice if isinstance(choice, tuple) else (choice,)))


def find(cases, **wanted):
    return next(c for c in cases if all(c.get(k) == v for k, v in wanted.items()))


def ratios_of(cases):
    """How many times better Heddle on Postgres is; {} without peers among the cases."""
    if not any(case["kind"] == "peer" for case in cases):
        return {}

    def rate(agent, **peer):
        ours = find(cases, kind="new", store="postgres", agent=agent, in_flight=IN_FLIGHT)
        theirs = find(cases, kind="peer", agent=agent, in_flight=IN_FLIGHT, **peer)
        return ours["rps"] / theirs["rps"]
    ours = find(cases, kind="long", store="postgres", agent="chain5", answer="wait")
    theirs = find(cases, kind="peer_long")
    return {"peers_turns_64": rate("chain5", peer=SAVER),
            "peers_wal_200": theirs["last_bytes"] / ours["last_bytes"],
            "peers_latency_200": theirs["last_us"] / ours["last_us"],
            "peers_server_echo_64": rate("echo", peer=SERVER),
            "peers_server_chain_64": rate("chain5", peer=SERVER)}


def cpu_us(case):
    return sum(value for name, value in case.items() if name.startswith("cpu_us_"))


def show(cases):
    """The peers beside Heddle's own figures of the same run."""
    theirs = [case for case in cases if case["kind"] in ("peer", "peer_long")]
    if not theirs:
        return
    ours = [case for case in cases if case["store"] == "postgres" and case["kind"] == "new"
            and case["in_flight"] in (1, IN_FLIGHT)]
    rows = [[c["agent"], c["in_flight"], c.get("peer", "Heddle"), c["store"], c["rps"],
             c["rps_spread"], c["p50_us"], c["p99_us"], c.get("written_bytes"), cpu_us(c)]
            for c in sorted(ours + [c for c in theirs if c["kind"] == "peer"],
                            key=lambda c: (c["agent"], c["in_flight"], c.get("peer", "")))]
    print("\nbeside its peers; the saver is called without HTTP, Heddle and the server over HTTP;\n"
          "WAL and processor time, that of Postgres and nginx included, are per turn")
    print(report.table(["agent", "in flight", "who", "store", "turns/s", "spread", "p50 us",
                        "p99 us", "WAL bytes", "cpu us"], rows))
    long = [find(cases, kind="long", store="postgres", agent="chain5", answer="wait"),
            find(theirs, kind="peer_long")]
    turns = long[1]["turns"]
    print(f"\nchain5, one thread of {turns} turns; medians of turns 1-10 and {turns - 9}-{turns}")
    print(report.table(["who", "first us", "last us", "first WAL bytes", "last WAL bytes"], [
        [c.get("peer", "Heddle"), c["first_us"], c["last_us"], c["first_bytes"], c["last_bytes"]]
        for c in long]))
