"""Real processes for tests: engines, nginx with the module, Postgres, a model server, the clinic.

    with Cluster(folder, engines=2, workers=2, store="sqlite") as cluster:
        … cluster.url …
        cluster.check_clean()

Ports are picked by the kernel, sockets lie in a folder of their own, and everything ends with the
block. HEDDLE_BUILD names the folder with the binaries (build/release); if that is a build with
AddressSanitizer, nginx runs with its library preloaded and check_clean() looks for its reports.
"""
import atexit
import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
for _folder in (ROOT / "scripts", ROOT / "tests/support"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from local import nginx  # noqa: E402
from local.postgres import Postgres  # noqa: E402
from local.processes import LocalError, Service, tail, wait_until  # noqa: E402

START_SECONDS = 60.0
PORT_TRIES = 10
PYTHON = "/usr/bin/python3"
ENGINE_STEPS = ((signal.SIGTERM, 30.0),)
SERVER_STEPS = ((signal.SIGTERM, 5.0),)
# What must not be in any log, whatever the test did.
FAULTS = re.compile(r"\[(?:alert|emerg|crit)\]|exited on signal|AddressSanitizer|LeakSanitizer"
                    r"|ThreadSanitizer|UndefinedBehaviorSanitizer|runtime error: "
                    r"|HEDDLE_ASSERT|Assertion .* failed|terminate called")
# A machine that stands still for some seconds must cost nobody anything; a longer lease would be
# waited for where nginx, after such a moment, takes an engine for dead that lives. Where an engine
# is to be given up because it died or was stopped, that takes SHORT_LEASE_MS, the default.
LEASE_MS = 8_000
SHORT_LEASE_MS = 2_000
PATIENCE = "heddle_connect_timeout 10s;"
# An engine that a test kills loses connections; nginx says so, and it is right.
EXPECTED = re.compile(r"\[alert\].* kill\(\d+, \d+\) failed \(3: No such process\)")


def build_folder():
    return pathlib.Path(os.environ.get("HEDDLE_BUILD", ROOT / "build/release")).resolve()


# AddressSanitizer keeps what was freed for a while, by default 256 MB of it: with that a test of how
# much memory something takes would measure the sanitizer.
ASAN_QUARANTINE_MB = 16


@functools.cache
def is_asan_build():
    try:
        cache = (build_folder() / "CMakeCache.txt").read_text()
    except OSError:
        return False
    return re.search(r"^HEDDLE_SANITIZE:\w+=.*address", cache, re.M) is not None


def free_port():
    """Free when asked; whoever binds it must be ready to try another."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def reserved_port():
    """A port that nobody else gets while the block lasts. Whoever sets SO_REUSEADDR, as nginx and
    Postgres do, may listen there; until then connections are refused."""
    with contextlib.closing(socket.socket()) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        yield place.getsockname()[1]


def rss(pid):
    """Bytes of memory that a process has resident."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmRSS:\s+(\d+) kB", text, re.M)[1]) * 1024


def get_json(url, data=None):
    request = urllib.request.Request(url, data=data, method="POST" if data is not None else "GET")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


class Server(Service):
    """A helper that prints `listening on http://127.0.0.1:PORT`. `url` is that; a restart keeps it."""

    def __init__(self, name, command, folder, env=None):
        super().__init__(name, [*command, "--port", "0"], folder / f"{name}.log",
                         steps=SERVER_STEPS, env=env)
        self.url = None

    def start(self):
        super().start()
        found = wait_until(lambda: re.search(r"listening on (http://127\.0\.0\.1:(\d+))",
                                             self.output()),
                           f"{self.name} starts", START_SECONDS, self)
        self.url = found[1]
        self.command[-1] = found[2]
        return self


class ModelServer(Server):
    """tests/support/model_server.py: the OpenAI protocol, `latency` seconds a call."""

    def __init__(self, folder, latency=0.0, options=()):
        super().__init__("model", [PYTHON, "-u", ROOT / "tests/support/model_server.py",
                                   "--latency-ms", str(round(latency * 1000)), *options], folder)

    @property
    def base_url(self):
        return self.url + "/v1"

    def stats(self):
        return get_json(self.url + "/stats")

    def requests(self):
        return get_json(self.url + "/requests")

    def reset(self):
        get_json(self.url + "/reset", data=b"")


class Clinic(Server):
    """The back end of agents/appointment; its state outlives a restart."""

    def __init__(self, folder):
        super().__init__("clinic", [PYTHON, "-u", ROOT / "agents/appointment/clinic/server.py",
                                    "--state", folder / "clinic.json"], folder)


class ToolServer(Server):
    """tests/support/tool_server.py: tools over HTTP that count what arrives."""

    def __init__(self, folder, name="tools", command=None):
        super().__init__(name, command or [PYTHON, "-u", ROOT / "tests/support/tool_server.py"],
                         folder)

    def hold(self, *names):
        get_json(self.url + "/hold", data=json.dumps({"names": names}).encode())

    def release(self):
        get_json(self.url + "/release", data=b"{}")

    def calls(self, name=None):
        """What has arrived, in order; of one tool if it is named."""
        return [call for call in get_json(self.url + "/calls")
                if name is None or call["name"] == name]


class McpServer(ToolServer):
    """tests/support/mcp_server.py: the same over MCP, with the SDK that HEDDLE_MCP_SDK names.

    port   of a server that was promised to others before it starts
    """

    def __init__(self, folder, options=(), port=0):
        python = pathlib.Path(os.environ["HEDDLE_MCP_SDK"]) / "bin/python"
        super().__init__(folder, "mcp", [python, "-u", "-B", ROOT / "tests/support/mcp_server.py",
                                         *options])
        self.command[-1] = str(port)

    def openings(self):
        """How often a session was asked for."""
        return get_json(self.url + "/openings")


class Engine(Service):
    """One heddle-engine. Its name is its number; start() again after kill9() or stop().

    endpoint   where nginx is told to find it, if something stands between them
    store_url  if not the cluster's
    """

    def __init__(self, cluster, number, *, endpoint=None, store_url=None):
        self.listen = f"ipc://{cluster.sockets}/engine-{number}.sock"
        self.endpoint = endpoint or self.listen
        name = f"engine-{number}"
        command = [build_folder() / "engine/app/heddle-engine", "--listen", self.listen,
                   "--advertise", self.endpoint, "--store", store_url or cluster.store_url,
                   "--agents", cluster.agents, "--name", name, *cluster.engine_options]
        super().__init__(name, command, cluster.folder / f"{name}.log", steps=ENGINE_STEPS,
                         env=cluster.environment)
        self.killed = False

    def start(self):
        self.begin()
        self.wait_ready()

    def begin(self):
        """Starts it and does not wait."""
        super().start()
        self.killed = False

    def wait_ready(self):
        wait_until(lambda: "ready" in self.output(), f"{self.name} gets ready", START_SECONDS, self)

    def kill9(self):
        self.killed = True
        self.identity.send(signal.SIGKILL)
        self.process.wait()

    def rss(self):
        return rss(self.pid)

    def metrics(self):
        """{name: value} as the engine itself says, not through nginx."""
        from api_client import parse_metrics
        from wire_client import WireClient
        with WireClient(self.listen) as client:
            status, text = client.request("GET", "/metrics")
        assert status == 200, (status, text)
        return parse_metrics(text.decode())


class Edge:
    """One nginx with the module in front of a cluster's engines.

    location / passes to them; nginx_http and nginx_server of the Cluster are added, and h2_url is a
    second port that speaks HTTP/2 without TLS.
    """

    def __init__(self, cluster, number):
        self.cluster = cluster
        self.folder = cluster.folder / f"nginx-{number}"
        self.folder.mkdir()
        self.name = f"nginx-{number}"
        self.port = self.h2_port = None
        self.nginx = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def h2_url(self):
        return f"http://127.0.0.1:{self.h2_port}"

    @property
    def error_log(self):
        return self.folder / "error.log"

    @property
    def pid(self):
        return self.nginx.pid

    def start(self):
        for left in reversed(range(PORT_TRIES)):
            fresh = self.port is None
            if fresh:
                self.port, self.h2_port = free_port(), free_port()
            seen = self.error_log.stat().st_size if self.error_log.exists() else 0
            try:
                self._start()
                return
            except LocalError:
                self.nginx.stop()
                text = self.error_log.read_text(errors="replace") if self.error_log.exists() else ""
                if "Address already in use" not in text[seen:] or not fresh or left == 0:
                    raise
                # Somebody took the port in between: its complaint is not a fault of the test.
                self.error_log.write_text(text[:seen])
                self.port = None

    def _start(self):
        self.nginx = nginx.Nginx(
            self.folder, self._http(), name=self.name,
            module=build_folder() / "ngx_module/ngx_http_heddle_module.so",
            workers=self.cluster.workers, error_log=self.error_log,
            temporary=self.folder / "tmp", main=self.cluster.nginx_main, level="info",
            shutdown="60s", env=self.cluster.nginx_environment, output=self.folder / "output.log")
        self.nginx.start()
        wait_until(self._serves, f"{self.name} serves", START_SECONDS, self.nginx)

    def _serves(self):
        if self.nginx.pid is None or len(self.worker_pids()) < self.cluster.workers:
            return False
        with contextlib.closing(socket.socket()) as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _http(self):
        cluster = self.cluster
        listen = [f"listen 127.0.0.1:{self.port};", f"listen 127.0.0.1:{self.h2_port} http2;"]
        location = "" if cluster.own_locations else "location / { heddle_pass main; }"
        patience = PATIENCE if cluster.lease_ms >= LEASE_MS else ""
        return f"""
{nginx.pool("main", [engine.endpoint for engine in cluster.engines])}
{cluster.nginx_http}
    server {{
        {listen[0]}
        {listen[1]}
        {patience}
        {location}
        location = /heddle/status {{ heddle_status; }}
{cluster.nginx_server}
    }}"""

    def stop(self):
        if self.nginx is not None:
            assert self.nginx.stop(), f"{self.name} had to be killed"

    def reload(self):
        """SIGHUP, and waits until all workers are there that were not before."""
        old = set(self.worker_pids())
        self.nginx.identity.send(signal.SIGHUP)
        wait_until(lambda: len(set(self.worker_pids()) - old) >= self.cluster.workers,
                   "the new workers after a reload", START_SECONDS, self.nginx)

    def worker_pids(self):
        return self.nginx.workers()

    def status(self):
        """The JSON of heddle_status."""
        return get_json(self.url + "/heddle/status")


class Cluster:
    """Engines, an nginx (or several), a store, and what the agents need.

    store     "sqlite", "memory", "postgres" (a new database of one private cluster per test process)
              or a URL
    agents    a folder; the repository's own if None
    model     a ModelServer, already started: OPENAI_BASE_URL of the engines. Ended with the cluster
    clinic    starts the clinic's server: CLINIC_URL of the engines
    lease_ms  an engine silent for longer is given up; with LEASE_MS nginx is as patient
    nginx_main, nginx_http, nginx_server   more directives for those blocks
    own_locations   there is no `location /`; nginx_server has its own
    """

    def __init__(self, folder, *, engines=2, workers=2, nginxes=1, store="sqlite", agents=None,
                 model=None, clinic=False, lease_ms=LEASE_MS, engine_options=(), environment=None,
                 nginx_main="", nginx_http="", nginx_server="", own_locations=False):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sockets = tempfile.mkdtemp(prefix="heddle-test-", dir="/tmp")
        self.workers = workers
        self.agents = pathlib.Path(agents or ROOT / "agents").resolve()
        self.model = model
        self.lease_ms = lease_ms
        self.engine_options = [str(option) for option in ("--lease-ms", lease_ms, *engine_options)]
        self.nginx_main, self.nginx_http, self.nginx_server = nginx_main, nginx_http, nginx_server
        self.own_locations = own_locations
        self.store_url = self._store(store)
        self.clinic = Clinic(self.folder) if clinic else None
        self.environment = self._environment(environment or {})
        self.nginx_environment = self._nginx_environment()
        self._engine_count = engines
        self.engines, self.edges = [], []
        self._nginxes = nginxes

    def _store(self, store):
        if store == "sqlite":
            return f"sqlite:{self.folder}/heddle.db"
        if store == "postgres":
            return new_database()
        return "memory:" if store == "memory" else store

    def _environment(self, more):
        # Nothing of the person who runs the tests may reach a real provider.
        result = {name: value for name, value in os.environ.items()
                  if not name.startswith(("OPENAI_", "HEDDLE_MODEL", "CLINIC_"))}
        if self.model is not None:
            result |= {"OPENAI_BASE_URL": self.model.base_url, "OPENAI_API_KEY": "test-key"}
        if is_asan_build():
            result["ASAN_OPTIONS"] = f"detect_leaks=1:{self._asan_options()}"
            result["UBSAN_OPTIONS"] = f"print_stacktrace=1:log_path={self.folder}/sanitizer"
        return result | more

    def _asan_options(self):
        return f"quarantine_size_mb={ASAN_QUARANTINE_MB}:log_path={self.folder}/sanitizer"

    def _nginx_environment(self):
        if not is_asan_build():
            return dict(os.environ)
        library = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True,
                                 text=True, check=True).stdout.strip()
        # nginx leaves its pools to the end of the process: what LeakSanitizer would report is not
        # the module's. The library must not be inherited by the compiler's link script.
        return dict(os.environ) | {
            "LD_PRELOAD": str(pathlib.Path(library).resolve()),
            "ASAN_OPTIONS": f"detect_leaks=0:{self._asan_options()}",
            "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={self.folder}/sanitizer"}

    # ---- life

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.end()
            self._show_logs()
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            self.down()
        finally:
            self.end()
            if kind is not None:
                self._show_logs()
        self.error_log_is_clean()

    def make_engine(self, number):
        return Engine(self, number)

    def up(self):
        """Starts everything that does not run."""
        if self.clinic is not None and not self.clinic.is_running():
            self.clinic.start()
            self.environment["CLINIC_URL"] = self.clinic.url
        if not self.engines:
            self.engines = [self.make_engine(number + 1) for number in range(self._engine_count)]
        stopped = [engine for engine in self.engines if not engine.is_running()]
        if stopped:
            stopped[0].start()  # alone: makes the tables
        for engine in stopped[1:]:
            engine.begin()
        for engine in stopped[1:]:
            engine.wait_ready()
        if not self.edges:
            self.edges = [Edge(self, number + 1) for number in range(self._nginxes)]
        for edge in self.edges:
            if edge.nginx is None or not edge.nginx.is_running():
                edge.start()
        self.wait_connected()

    def wait_connected(self):
        """Until every nginx worker knows every engine as one that lives: right after the start of
        an engine that was gone, a request may find none."""
        wait_until(lambda: all(self._is_connected(edge) for edge in self.edges),
                   "every nginx worker is connected to every engine", START_SECONDS)

    @staticmethod
    def _is_connected(edge):
        try:
            (main,) = [pool for pool in edge.status()["pools"] if pool["name"] == "main"]
        except OSError:
            return False
        workers = set(edge.worker_pids())
        return all(workers <= {row["pid"] for row in engine["workers"] if row["state"] == "up"}
                   for engine in main["engines"])

    def down(self):
        """Ends nginx, then the engines, each gracefully; what the store holds stays."""
        for edge in self.edges:
            edge.stop()
        for engine in self.engines:
            if engine.is_running():
                assert engine.stop(), f"{engine.name} had to be killed: {tail(engine.log)}"
                if engine.process.returncode != 0:
                    self.error_log_is_clean()  # a sanitizer's report says more
                assert engine.process.returncode == 0, \
                    f"{engine.name} ended with {engine.status_text()}: {tail(engine.log)}"

    def end(self):
        """Whatever of it runs, by force if it must be. Judges nothing."""
        services = [edge.nginx for edge in self.edges] + self.engines + [self.clinic, self.model]
        for service in services:
            if service is not None and service.process is not None:
                service.stop()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def _show_logs(self):
        for path in self.logs():
            print(f"---- {path}", *tail(path, 30), sep="\n")

    # ---- looking at it

    @property
    def url(self):
        return self.edges[0].url

    @property
    def h2_url(self):
        return self.edges[0].h2_url

    @property
    def urls(self):
        return [edge.url for edge in self.edges]

    @property
    def master_pid(self):
        return self.edges[0].pid

    def worker_pids(self):
        """Of all nginxes."""
        return [pid for edge in self.edges for pid in edge.worker_pids()]

    def worker_rss(self):
        return sum(rss(pid) for pid in self.worker_pids())

    def engine_pids(self):
        return [engine.pid for engine in self.engines]

    def engines_rss(self):
        return sum(engine.rss() for engine in self.engines if engine.is_running())

    def logs(self):
        """Every log and sanitizer report."""
        return [edge.error_log for edge in self.edges] + \
            [path for path in sorted(self.folder.glob("*"))
             if path.suffix == ".log" or path.name.startswith("sanitizer")] + \
            sorted(self.folder.glob("nginx-*/output.log"))

    def error_log_is_clean(self):
        """No alert, no crash, no sanitizer report in any log."""
        faults = []
        for path in self.logs():
            text = path.read_text(errors="replace") if path.exists() else ""
            faults += [f"{path.name}: {line}" for line in text.splitlines()
                       if FAULTS.search(line) and not EXPECTED.search(line)]
            if path.name.startswith("sanitizer") and text:
                faults += tail(path, 60)
        assert not faults, "\n".join(faults[:80])

    def check_clean(self):
        """error_log_is_clean, and every engine that was not killed on purpose still runs."""
        self.error_log_is_clean()
        for engine in self.engines:
            assert engine.killed or engine.is_running(), \
                f"{engine.name} ended with {engine.status_text()}: {tail(engine.log)}"

    def restart(self):
        """The whole of it, gracefully; ports and sockets stay."""
        self.down()
        self.up()


# ---- one Postgres for a test process


class _Postgres:
    cluster = None
    folder = None


def postgres_cluster():
    """The private cluster of this test process, started with its first use."""
    if _Postgres.cluster is None:
        _Postgres.folder = pathlib.Path(tempfile.mkdtemp(prefix="heddle-test-pg-", dir="/tmp"))
        _Postgres.folder.chmod(0o711)
        cluster = Postgres(_Postgres.folder / "data", _Postgres.folder,
                           _Postgres.folder / "postgres.log")
        atexit.register(_end_postgres)
        _Postgres.cluster = cluster
        cluster.start()
        cluster.wait_ready()
    return _Postgres.cluster


def _end_postgres():
    _Postgres.cluster.stop()
    shutil.rmtree(_Postgres.folder, ignore_errors=True)


def new_database():
    """The URL of an empty database."""
    cluster = postgres_cluster()
    name = f"test_{uuid.uuid4().hex}"
    cluster.create_database(name)
    return cluster.url_of(name)
