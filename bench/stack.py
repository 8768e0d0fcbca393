"""The processes a benchmark needs, each in a folder of its own that goes away with it.

Nothing here uses a fixed port or a running server of the machine: nginx gets free ports, engines
and Postgres listen on UNIX sockets inside the temporary folder. Everything that is started is
ended by its pid when the Stack is left, also after an error.
"""
import contextlib
import glob
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

START_SECONDS = 30
STOP_SECONDS = 20
NOBODY = "nobody"
AGENTS = ("echo", "chain5")
TICKS = os.sysconf("SC_CLK_TCK")
STATEMENTS = ("-c", "shared_preload_libraries=pg_stat_statements", "-c", "track_io_timing=on")


class BenchError(Exception):
    """Something a person has to know about; the text says what and, if known, what to do."""


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, what, process=None, log=None):
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if process is not None and process.poll() is not None:
            raise BenchError(f"{what}: it ended with status {process.returncode}\n{tail(log)}")
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {START_SECONDS} s\n{tail(log)}")
        time.sleep(0.02)


def tail(path, lines=15):
    if path is None or not pathlib.Path(path).exists():
        return ""
    text = pathlib.Path(path).read_text(errors="replace").splitlines()
    return "\n".join("    " + line for line in text[-lines:])


def answers(port):
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def children(pid):
    """The pids of the processes that one started itself and that still run."""
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_of(pid, with_ended=False):
    """Processor seconds of a process; on demand with those of its children that have ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0  # it has ended; Postgres does that with its background workers
    return sum(map(int, fields[11:15 if with_ended else 13])) / TICKS


def tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise BenchError(f"{name} is missing: run ./heddle doctor")
    return path


class Stack:
    """Owns a temporary folder and the processes in it."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="heddle-bench-"))
        self.folder.chmod(0o711)  # Postgres runs as another user below it
        self._processes = []
        self._places = []

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for process, stop_signal in reversed(self._processes):
            self._end(process, stop_signal)
        for place in self._places:
            place.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def reserve_port(self):
        """Nobody else gets it as long as the Stack lasts; nginx, which sets SO_REUSEADDR too, may
        listen there."""
        place = socket.socket()
        self._places.append(place)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]

    def start(self, name, command, stop_signal=signal.SIGTERM, env=None):
        """Starts a process whose output goes to NAME.log; returns it and that path."""
        log = self.folder / f"{name}.log"
        with open(log, "ab") as out:
            process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=out, env=env, cwd=self.folder)
        self._processes.append((process, stop_signal))
        return process, log

    def stop(self, process):
        """Ends one process now."""
        for entry in [e for e in self._processes if e[0] is process]:
            self._processes.remove(entry)
            self._end(*entry)

    @staticmethod
    def _end(process, stop_signal):
        if process.poll() is None:
            process.send_signal(stop_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"warning: {process.args[0]} had to be killed")


class Nginx:
    """An nginx of our own with the given `http` content; {port} in it is its first free port."""

    def __init__(self, stack, name, workers, http, module=None):
        self.folder = stack.folder / name
        self.folder.mkdir()
        self.port = stack.reserve_port()
        conf = self.folder / "nginx.conf"
        conf.write_text(self._config(workers, http, module))
        command = [tool("nginx"), "-p", self.folder, "-c", conf, "-e", self.error_log]
        check = subprocess.run(command + ["-t"], capture_output=True, text=True)
        if check.returncode != 0:
            raise BenchError(f"nginx refuses the configuration of {name}:\n{check.stderr}")
        self.process, log = stack.start(name, command, signal.SIGQUIT)
        wait_until(lambda: answers(self.port), f"nginx {name}", self.process, self.error_log)

    @property
    def error_log(self):
        return self.folder / "error.log"

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def workers(self):
        """The pids of the worker processes."""
        return children(self.process.pid)

    def check_log(self):
        """Raises if a worker complained: a figure measured over faults is not one."""
        for line in self.error_log.read_text(errors="replace").splitlines():
            if "[alert]" in line or "[emerg]" in line or "[crit]" in line:
                raise BenchError(f"nginx says: {line}")

    def _config(self, workers, http, module):
        user = "user root;" if os.geteuid() == 0 else ""
        load = f"load_module {module};" if module else ""
        return f"""{load}
{user}
daemon off;
pid {self.folder}/nginx.pid;
error_log {self.error_log} warn;
worker_processes {workers};
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {self.folder}/body;
    proxy_temp_path {self.folder}/proxy;
    fastcgi_temp_path {self.folder}/fastcgi;
    uwsgi_temp_path {self.folder}/uwsgi;
    scgi_temp_path {self.folder}/scgi;
{http.replace("{port}", str(self.port)).replace("{folder}", str(self.folder))}
}}
"""


class Engines:
    """`count` engines over one store, each on a UNIX socket."""

    def __init__(self, stack, build, root, store, count=1):
        binary = build / "engine/app/heddle-engine"
        if not binary.exists():
            raise BenchError(f"{binary} is missing: build the release preset first")
        self.endpoints, self.pids = [], []
        agents = stack.folder / "agents"
        for name in AGENTS:  # no other agent may make a benchmark depend on its own needs
            shutil.copytree(root / "agents" / name, agents / name)
        for number in range(1, count + 1):
            endpoint = f"ipc://{stack.folder}/engine-{number}.sock"
            process, log = stack.start(f"engine-{number}", [
                binary, "--listen", endpoint, "--store", store, "--agents", agents,
                "--name", f"bench-{number}", "--log-level", "info"])
            wait_until(lambda log=log: "ready" in log.read_text(errors="replace"),
                       f"engine {number}", process, log)
            self.endpoints.append(endpoint)
            self.pids.append(process.pid)

    def pool(self, name):
        servers = "\n".join(f"        engine {endpoint};" for endpoint in self.endpoints)
        return f"    heddle_pool {name} {{\n        zone {name} 1m;\n{servers}\n    }}"


class Postgres:
    """A private cluster with the settings it ships with (fsync and synchronous_commit are on),
    on a UNIX socket in the stack's folder. Started as `nobody` if we are root: it refuses root."""

    def __init__(self, stack, counts_statements=False):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"),
                       key=lambda path: int(path.split("/")[4]))
        if not found:
            raise BenchError("Postgres is missing: run ./heddle doctor")
        self._bin = pathlib.Path(found[-1])
        self.folder = stack.folder / "postgres"
        self.folder.mkdir(mode=0o700)
        self._as = []
        if os.geteuid() == 0:
            account = pwd.getpwnam(NOBODY)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as = [tool("setpriv"), f"--reuid={account.pw_uid}",
                        f"--regid={account.pw_gid}", "--clear-groups"]
        data = self.folder / "data"
        subprocess.run(self._as + [self._bin / "initdb", "-D", data, "-U", "heddle", "-A", "trust",
                                   "-E", "UTF8", "--locale=C.UTF-8"],
                       check=True, cwd=self.folder, stdout=subprocess.DEVNULL)
        self.process, log = stack.start("postgres", self._as + [
            self._bin / "postgres", "-D", data, "-k", self.folder,
            "-c", "listen_addresses=", "-c", "fsync=on", "-c", "synchronous_commit=on",
            *(STATEMENTS if counts_statements else ())], signal.SIGINT)
        wait_until(lambda: self._ready(), "Postgres", self.process, log)
        self._psql = subprocess.Popen(
            self._command("psql") + ["-XAtq", "-d", "postgres"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder)
        if counts_statements:
            self.ask("CREATE EXTENSION pg_stat_statements")
        self.ask("CREATE DATABASE heddle")
        self.url = f"postgres://heddle@/heddle?host={self.folder}"

    def _command(self, name):
        return self._as + [str(self._bin / name), "-h", str(self.folder), "-U", "heddle"]

    def _ready(self):
        return subprocess.run(self._command("pg_isready") + ["-q", "-d", "postgres"],
                              cwd=self.folder).returncode == 0

    def ask(self, statement):
        """The first line of the answer of one statement ("" if there is none)."""
        return next(iter(self.ask_all(statement)), "")

    def ask_all(self, statement):
        """The lines of the answer of one statement; all on one connection that stays open."""
        self._psql.stdin.write(f"{statement};\n\\echo done\n")
        self._psql.stdin.flush()
        lines = []
        while True:
            line = self._psql.stdout.readline()
            if not line or line.startswith(("ERROR", "FATAL")):
                raise BenchError(f"Postgres refused {statement!r}: {line.strip()}")
            if line.strip() == "done":
                return lines
            lines.append(line.strip())

    def one_row(self, connections, seconds):
        """The plainest durable write of this machine, by pgbench without anything of ours: one row
        of 100 bytes, inserted by a prepared statement in a transaction of its own."""
        self.ask("CREATE TABLE IF NOT EXISTS one_row (number int8, text text)")
        script, logs = self.folder / "one_row.sql", self.folder / "one_row"
        script.write_text(f"INSERT INTO one_row VALUES (:client_id, '{'x' * 80}');\n")
        done = subprocess.run(
            self._command("pgbench") + ["-n", "-M", "prepared", "-c", str(connections), "-j", "1",
                                        "-T", str(max(1, round(seconds))), "-f", str(script), "-l",
                                        "--log-prefix", str(logs), "postgres"],
            capture_output=True, text=True, cwd=self.folder)
        if done.returncode != 0:
            raise BenchError(f"pgbench: {done.stderr.strip()}")
        latencies = []
        for file in self.folder.glob("one_row.[0-9]*"):
            latencies += [int(line.split()[2]) for line in file.read_text().splitlines()]
            file.unlink()
        latencies.sort()
        rate = next(float(line.split()[2]) for line in done.stdout.splitlines()
                    if line.startswith("tps = "))
        return {"rps": rate, "p50_us": latencies[len(latencies) // 2],
                "p99_us": latencies[int(0.99 * len(latencies))]}

    def wal_bytes(self):
        return int(self.ask("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def full_page_images(self):
        return int(self.ask("SELECT wal_fpi FROM pg_stat_wal"))

    def what_took_time(self):
        """A line for each kind of statement that took time: milliseconds in all, calls,
        microseconds, rows, buffers and WAL bytes per call, text. Then one for each table since the
        cluster was started: sequential scans and the rows they read, index scans and theirs, rows
        updated, of these HOT, and dead rows."""
        return self.ask_all(
            "SELECT round(total_exec_time::numeric, 1) || ' ms  ' || calls || ' calls  '"
            " || round((1000 * mean_exec_time)::numeric, 1) || ' us  '"
            " || round(rows::numeric / calls, 2) || ' rows  '"
            " || (shared_blks_hit + shared_blks_read) / calls || ' buffers  '"
            " || round(wal_bytes / calls) || ' WAL  '"
            r" || left(regexp_replace(query, '\s+', ' ', 'g'), 160)"
            " FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 25"
        ) + self._tables()

    def ask_heddle(self, statement):
        """What one statement answers in the engines' database, on a connection of its own."""
        done = subprocess.run(self._command("psql") + ["-XAtq", "-d", "heddle", "-c", statement],
                              capture_output=True, text=True, cwd=self.folder)
        if done.returncode != 0:
            raise BenchError(f"Postgres refused {statement!r}: {done.stderr.strip()}")
        return done.stdout.strip()

    def _tables(self):
        return self.ask_heddle(
            "SELECT relname || ': ' || seq_scan || ' seq scans, ' || seq_tup_read || ' rows; '"
            " || idx_scan || ' index scans, ' || idx_tup_fetch || ' rows; updated ' || n_tup_upd"
            " || ', HOT ' || n_tup_hot_upd || ', dead ' || n_dead_tup"
            " FROM pg_stat_user_tables ORDER BY relname").splitlines()

    def close(self):
        """Ends the session, so that the server can stop at once."""
        self._psql.stdin.close()
        self._psql.stdout.close()
        self._psql.wait(STOP_SECONDS)


def run_load(build, url, *options):
    """One run of heddle-load; its result. Raises if a single answer was wrong."""
    binary = build / "bench/heddle-load"
    if not binary.exists():
        raise BenchError(f"{binary} is missing: build the release preset first")
    done = subprocess.run([str(binary), "--url", url, "--json", "-"] + [str(o) for o in options],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"wrong answers from {url}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def ceiling_http(location, body_bytes):
    """A location that answers at once with a body of that size: what the generator itself can."""
    body = "x" * body_bytes
    return f"""
        location {location} {{
            default_type application/json;
            return 200 "{body}";
        }}"""
