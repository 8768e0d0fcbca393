#!/usr/bin/python3
"""`./heddle down`, `status` and `logs`: look at an instance, and end it."""
import argparse
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from local.folders import State  # noqa: E402
from local.processes import LocalError, end  # noqa: E402

NOT_RUNNING = 3  # the exit status of `status`, as of init scripts
# The supervisor needs as long as everything that it ends in turn.
SUPERVISOR_STEPS = ((signal.SIGTERM, 90.0),)
LEFTOVER_STEPS = ((signal.SIGTERM, 10.0),)


def down(state, _options):
    identities = state.identities()
    supervisor = identities.pop("supervisor", None)
    ended = False
    if supervisor is not None and supervisor.is_alive():
        print(f"ending the instance in {state.folder} (pid {supervisor.pid})", flush=True)
        end(supervisor, SUPERVISOR_STEPS)
        ended = True
    for name, identity in identities.items():
        # The supervisor removes its pid files; what is left was left by one that was killed.
        if identity.group():
            print(f"ending {name} (pid {identity.pid}), left by a supervisor that was killed")
            end(identity, LEFTOVER_STEPS)
            ended = True
    if state.run.is_dir():
        state.forget()
    print("ended" if ended else f"nothing runs in {state.folder}")
    return 0


def fetch_status(port):
    """The module's JSON, or a text that says why there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/heddle/status")
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            return f"HTTP {answer.status}"
        return json.loads(text)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer: {error}"
    finally:
        connection.close()


def age(seconds):
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def status(state, options):
    instance, identities = state.read_instance(), state.identities()
    running = {name: one for name, one in identities.items() if one.is_alive()}
    if instance is None or "supervisor" not in running:
        for name, one in running.items():
            print(f"{name} (pid {one.pid}) is left by a supervisor that was killed: ./heddle down")
        print(f"nothing runs in {state.folder}" if not running else "the supervisor is gone")
        return NOT_RUNNING
    live = fetch_status(instance["port"])
    if options.json:
        print(json.dumps({"instance": instance, "status": live, "pids": {
            name: one.pid for name, one in running.items()}}, indent=1))
        return 0
    print(f"{instance['url']}  {'ready' if instance['ready'] else 'starting'}, up "
          f"{age(int(time.time()) - instance['started_at'])}, store {instance['store']}, "
          f"state {state.folder}")
    rows = [("process", "pid", "state")]
    for name, identity in identities.items():
        rows.append((name, str(identity.pid), "runs" if identity.is_alive() else "dead"))
    print_table(rows)
    if isinstance(live, str):
        print(f"engines: {live}")
        return 1
    print_engines(live, {one["endpoint"]: one["name"] for one in instance["engines"]})
    return 0


def print_engines(live, names):
    """A table of what the module knows of each engine of each pool."""
    columns = {"state": "state", "threads_owned": "owned threads", "runs_running": "running runs",
               "runs_waiting": "waiting runs", "in_flight": "requests"}
    for pool in live.get("pools", []):
        rows = [("engine", *columns.values())]
        for engine in pool.get("engines", []):
            endpoint = engine.get("endpoint", "?")
            rows.append((names.get(endpoint, endpoint),
                         *(str(engine.get(name, "-")) for name in columns)))
        print(f"\npool {pool.get('name', '?')}")
        print_table(rows)


def print_table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def logs(state, options):
    names = options.name or sorted(path.stem for path in state.logs.glob("*.log"))
    paths = [state.log(name) for name in names]
    missing = [name for name, path in zip(names, paths) if not path.exists()]
    if missing or not paths:
        have = ", ".join(sorted(path.stem for path in state.logs.glob("*.log"))) or "none"
        raise LocalError(f"no log of {', '.join(missing) or 'anything'} in {state.logs}",
                         f"There are: {have}.")
    command = ["tail", "-n", str(options.lines)] + (["-F"] if options.follow else [])
    try:
        return subprocess.run(command + [str(path) for path in paths], check=False).returncode
    except KeyboardInterrupt:
        return 0


def main(arguments):
    parser = argparse.ArgumentParser(prog="./heddle")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, function in (("down", down), ("status", status), ("logs", logs)):
        verb = verbs.add_parser(name)
        verb.set_defaults(function=function)
        verb.add_argument("--state", default=str(ROOT / ".heddle"), metavar="DIR")
        if name == "status":
            verb.add_argument("--json", action="store_true", help="for programs")
        if name == "logs":
            verb.add_argument("name", nargs="*", help="engine-1, nginx, supervisor, … (all)")
            verb.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
            verb.add_argument("-n", "--lines", type=int, default=20, help="of each log (20)")
    options = parser.parse_args(arguments)
    try:
        return options.function(State(options.state), options)
    except LocalError as error:
        print(f"heddle: error: {error}\n        {error.what_to_do}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
