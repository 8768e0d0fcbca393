#!/usr/bin/python3
"""Starts one instance of Heddle on this machine; `./heddle up` calls it when everything is built.

--detach starts the same program once more in the background and waits until that one serves.
"""
import argparse
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from local import nginx  # noqa: E402
from local.folders import State, already_running, remove_sockets, sockets_folder  # noqa: E402
from local.postgres import Postgres  # noqa: E402
from local.processes import Identity, LocalError, Service, end, tail, wait_until  # noqa: E402
from local.supervisor import Stopped, Supervisor, log  # noqa: E402

START_SECONDS = 60.0
DETACH_SECONDS = 180.0
ENGINE_STEPS = ((signal.SIGTERM, 15.0), (signal.SIGINT, 2.0))
ENGINE_HINTS = {  # by exit code, engine/app/exit_codes.hpp
    3: "Mend the agent file; docs/agents.md says how one is written.",
    4: "Is the store's server up, and may you open it? --store URL names another.",
    5: "Another engine listens there; ./heddle status, or another --state.",
}
CLINIC_STEPS = ((signal.SIGTERM, 3.0),)
LEFTOVER_STEPS = ((signal.SIGTERM, 10.0),)

HTTP = """\
{pool}
    # At most ten requests a minute for each API key; also take the comment off heddle_limit below.
    # heddle_limit_zone $http_x_api_key zone=per_key:10m rate=10r/m;

    server {{
        listen 127.0.0.1:{port};

        location / {{
            heddle_pass main;
            # heddle_limit zone=per_key burst=10;
        }}
        location = /heddle/status {{
            access_log off;
            heddle_status;
        }}
    }}"""


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./heddle up", description="Builds and starts Heddle here.")
    parser.add_argument("--detach", action="store_true", help="run in the background")
    parser.add_argument("--port", type=int, default=8080, help="on 127.0.0.1; 0 picks one (8080)")
    parser.add_argument("--engines", type=int, default=2, help="engine processes (2)")
    parser.add_argument("--workers", type=int, default=2, help="nginx worker processes (2)")
    parser.add_argument("--store", default=None, metavar="URL",
                        help="sqlite:FILE, postgres://…, postgres:local, memory: "
                             "(sqlite:STATE/heddle.db)")
    parser.add_argument("--agents", default=str(ROOT / "agents"), metavar="DIR",
                        help="folder with NAME/agent.yaml (agents/)")
    parser.add_argument("--state", default=str(ROOT / ".heddle"), metavar="DIR",
                        help="where everything of this instance lies (.heddle/)")
    parser.add_argument("--supervise", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, least, most in (("port", 0, 65535), ("engines", 1, 64), ("workers", 1, 256)):
        if not least <= getattr(options, name) <= most:
            parser.error(f"--{name} must be {least} to {most}")
    return options


class Instance:
    def __init__(self, options):
        self.options = options
        self.build = pathlib.Path(os.environ.get("HEDDLE_BUILD", ROOT / "build/release")).resolve()
        self.state = State(options.state)
        self.supervisor = Supervisor()
        self.sockets = None
        self.engines = []
        self.environment = dict(os.environ)

    # ---- start

    def start(self):
        self.state.make()
        self.state.lock()
        self.end_leftovers()
        check_store(self.options.store)
        agents = find_agents(self.options.agents)
        self.options.agents = os.path.abspath(self.options.agents)
        self.port = pick_port(self.options.port)
        self.sockets = sockets_folder(self.state.run, self.options.store == "postgres:local")
        Identity.of(os.getpid()).write(self.state.pid_file("supervisor"))
        self.write_instance(ready=False)
        store = self.open_store()
        self.start_clinic()
        self.start_engines(store)
        self.start_nginx()
        self.write_instance(ready=True)
        return agents

    def end_leftovers(self):
        """What a killed supervisor left running would hold the port and the sockets."""
        for name, identity in self.state.identities().items():
            if name == "supervisor" or not identity.group():
                continue
            log(f"{name} (pid {identity.pid}) is left from an instance that was killed; ending it")
            end(identity, LEFTOVER_STEPS)
        self.state.forget()

    def open_store(self):
        store = self.options.store or f"sqlite:{self.state.folder}/heddle.db"
        if store == "postgres:local":
            postgres = Postgres(self.state.folder / "postgres", self.sockets,
                                self.state.fresh_log("postgres"),
                                pid_file=self.state.pid_file("postgres"))
            if postgres.is_new():
                log(f"making a Postgres cluster in {postgres.data}")
            self.supervisor.start(postgres)
            postgres.wait_ready()
            return postgres.url
        if store.startswith("sqlite:") and not store.startswith("sqlite:/"):
            store = "sqlite:" + os.path.abspath(store.removeprefix("sqlite:"))
        if store == "memory:" and self.options.engines > 1:
            log("memory: is a store of its own in each engine, and gone with it; "
                "a thread made in one engine is unknown in the other (--engines 1)")
        return store

    def start_clinic(self):
        """The appointment agent's tools call it; its address is CLINIC_URL."""
        server = pathlib.Path(self.options.agents) / "appointment/clinic/server.py"
        if os.environ.get("CLINIC_URL") or not server.exists():
            return
        clinic = Service("clinic", ["/usr/bin/python3", "-u", server, "--port", "0", "--state",
                                    self.state.folder / "clinic.json"],
                         self.state.fresh_log("clinic"), steps=CLINIC_STEPS,
                         pid_file=self.state.pid_file("clinic"))
        self.supervisor.start(clinic)
        found = wait_until(
            lambda: re.search(r"listening on (http://127\.0\.0\.1:(\d+))", clinic.output()),
            "the clinic's server starts", START_SECONDS, clinic)
        self.environment["CLINIC_URL"] = found[1]
        clinic.command[clinic.command.index("--port") + 1] = found[2]  # the same when started again

    def start_engines(self, store):
        binary = self.build / "engine/app/heddle-engine"
        if not binary.exists():
            raise LocalError(f"{binary} is missing", "scripts/build.sh release heddle-engine")
        for number in range(1, self.options.engines + 1):
            name = f"engine-{number}"
            command = [binary, "--listen", f"ipc://{self.sockets}/{name}.sock",
                       "--agents", self.options.agents, "--name", name]
            command += self.store_options(store)
            engine = Service(name, command, self.state.fresh_log(name), steps=ENGINE_STEPS,
                             env=self.environment, pid_file=self.state.pid_file(name))
            engine.endpoint = f"ipc://{self.sockets}/{name}.sock"
            self.supervisor.start(engine)
            self.engines.append(engine)
            if number == 1:  # alone, so that one engine makes the tables
                self.wait_engine(engine)
        for engine in self.engines[1:]:
            self.wait_engine(engine)

    @staticmethod
    def wait_engine(engine):
        try:
            wait_until(lambda: "ready" in engine.output(), f"{engine.name} gets ready",
                       START_SECONDS, engine)
        except LocalError as error:
            error.what_to_do = ENGINE_HINTS.get(engine.process.returncode, error.what_to_do)
            raise

    def store_options(self, store):
        """A password must not be seen in the list of processes: it goes through a private file."""
        if urllib.parse.urlsplit(store).password is None:
            return ["--store", store]
        path = self.state.run / "engine.yaml"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"store: {json.dumps(store)}\n")
        return ["--config", path]

    def start_nginx(self):
        module = self.build / "ngx_module/ngx_http_heddle_module.so"
        if not module.exists():
            raise LocalError(f"{module} is missing",
                             "scripts/build.sh release ngx_http_heddle_module")
        error_log = self.state.fresh_log("nginx")
        http = HTTP.format(pool=nginx.pool("main", [one.endpoint for one in self.engines]),
                           port=self.port)
        server = nginx.Nginx(
            self.state.folder, http, module=module, workers=self.options.workers,
            error_log=error_log, access_log=self.state.fresh_log("access"),
            temporary=self.state.temporary, pid_file=self.state.pid_file("nginx"))
        server.check()
        self.supervisor.start(server)
        wait_until(lambda: answers_ok(self.port), f"{self.url}/ok answers", START_SECONDS, server)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def write_instance(self, ready):
        self.state.write_instance({
            "ready": ready, "url": self.url, "port": self.port, "sockets": str(self.sockets),
            "store": without_password(self.options.store or "sqlite:heddle.db"),
            "agents": self.options.agents, "started_at": int(time.time()),
            "engines": [{"name": one.name, "endpoint": one.endpoint} for one in self.engines]})

    # ---- end

    def stop(self):
        killed = self.supervisor.stop()
        self.state.forget()
        remove_sockets(self.sockets, self.state.run)
        return killed


def check_store(store):
    known = ("sqlite:", "postgres://", "postgresql://")
    if store in (None, "postgres:local", "memory:") or store.startswith(known):
        return
    raise LocalError(f"--store {store.split(':', 1)[0]}: is no store",
                     "Use sqlite:FILE, postgres://user@host/database, postgres:local or memory:.")


def find_agents(folder):
    """The names of the agents in a folder."""
    found = sorted(path.parent.name for path in pathlib.Path(folder).glob("*/agent.yaml"))
    if not found:
        raise LocalError(f"{os.path.abspath(folder)} holds no NAME/agent.yaml",
                         "Name the folder of your agents with --agents DIR; docs/agents.md says how "
                         "one is written.")
    return found


def without_password(store):
    parts = urllib.parse.urlsplit(store)
    if parts.password is None:
        return store
    return store.replace(f":{parts.password}@", ":***@", 1)


def pick_port(wanted):
    """`wanted` if it is free (0: one that is)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise LocalError(f"cannot listen on 127.0.0.1:{wanted}: {error.strerror}",
                             "Choose another with --port N (0 picks a free one).") from error
        return probe.getsockname()[1]


def answers_ok(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ok")
        answer = connection.getresponse()
        return answer.status == 200 and json.loads(answer.read()).get("ok") is True
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def examples(url, agents):
    """Three commands that work when they are pasted."""
    first = "echo" if "echo" in agents else agents[0]
    talk = "appointment" if "appointment" in agents else first
    header = "-H 'content-type: application/json'"

    def chat(agent, message):
        body = json.dumps({"agent": agent, "message": message}, ensure_ascii=False)
        return f"curl -sw '\\n' {url}/chat {header} -d '{body}'"
    body = json.dumps({"assistant_id": first, "if_not_exists": "create",
                       "input": {"messages": [{"role": "user", "content": "Hello"}]},
                       "stream_mode": ["updates", "values"]})
    return [chat(first, "Hello"), chat(talk, "Hola, ¿qué servicios tienen disponibles?"),
            f"curl -sN {url}/threads/$(cat /proc/sys/kernel/random/uuid)/runs/stream {header} "
            f"-d '{body}'"]


def print_ready(url, agents, state, detached):
    flag = "" if state == ROOT / ".heddle" else f" --state {state}"
    lines = [f"\nHeddle serves {', '.join(agents)} at {url}\n"]
    lines += [f"  {line}\n" for line in examples(url, agents)]
    lines.append(f"./heddle status{flag}, ./heddle logs{flag}, ./heddle down{flag}" if detached
                 else "Ctrl-C ends it.")
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # nobody reads; what was started serves all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error):
    """The failure, the last words of whatever failed, and what to do."""
    lines = [f"heddle: error: {error}"]
    if error.log is not None:
        lines += [f"        the end of {error.log}:"]
        lines += [f"          {line}" for line in tail(error.log)]
    lines += [f"        {error.what_to_do or './heddle doctor checks this machine.'}"]
    print("\n".join(lines), file=sys.stderr, flush=True)


def serve(options):
    instance = Instance(options)
    status = 0
    try:
        agents = instance.start()
        if not options.supervise:
            print_ready(instance.url, agents, instance.state.folder, False)
        log(f"serving at {instance.url}")
        instance.supervisor.run()
    except Stopped as reason:
        log(f"{reason}: ending")
    except LocalError as error:
        explain(error)
        status = 1
    finally:
        if instance.sockets is not None:  # else what runs here belongs to another instance
            killed = instance.stop()
            log(f"ended{'; had to be killed: ' + ', '.join(killed) if killed else ''}")
    return status


def detach(options, arguments):
    """Starts the supervisor in a session of its own and waits until it serves."""
    state = State(options.state)
    state.make()
    path = state.log("supervisor")
    with open(path, "ab") as out:
        begin = out.tell()
        child = subprocess.Popen(
            [sys.executable, "-u", __file__, *arguments, "--supervise"], stdin=subprocess.DEVNULL,
            stdout=out, stderr=out, start_new_session=True)
    try:
        return wait_detached(options, state, child, path, begin)
    except KeyboardInterrupt:
        child.terminate()
        print("heddle: interrupted; ending it", file=sys.stderr)
        child.wait()
        return 130


def wait_detached(options, state, child, path, begin):
    deadline = time.monotonic() + DETACH_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        instance = state.read_instance() or {}
        supervisor = Identity.read(state.pid_file("supervisor"))
        if instance.get("ready") and supervisor and supervisor.pid == child.pid:
            print_ready(instance["url"], find_agents(options.agents), state.folder, True)
            return 0
        time.sleep(0.05)
    with open(path, errors="replace") as file:
        file.seek(begin)
        sys.stderr.write(file.read())
    if child.poll() is None:
        print(f"heddle: error: not ready within {DETACH_SECONDS:g} s; {path} tells more; ending it",
              file=sys.stderr)
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.returncode or 1


def check(options):
    """What can be told before the build: mistakes in the options, an instance that runs already."""
    state = State(options.state)
    supervisor = Identity.read(state.pid_file("supervisor"))
    if supervisor is not None and supervisor.is_alive():
        raise already_running(state)
    find_agents(options.agents)
    check_store(options.store)
    if not any(identity.group() for identity in state.identities().values()):
        pick_port(options.port)  # else it may be held by what the start ends first
    return 0


def main(arguments):
    options = parse(arguments)
    try:
        if options.check:
            return check(options)
        if options.detach and not options.supervise:
            return detach(options, arguments)
        return serve(options)
    except LocalError as error:
        explain(error)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
