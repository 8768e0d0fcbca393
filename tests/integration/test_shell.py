"""./heddle as a person uses it: up, the printed commands, status, logs, down, and what goes wrong."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from harness import ROOT, build_folder, free_port, get_json, is_asan_build

sys.path.insert(0, str(ROOT / "scripts"))
from local.processes import Identity  # noqa: E402

HEDDLE = ROOT / "heddle"
SECONDS = 90.0

pytestmark = pytest.mark.usefixtures("_needs_no_sanitizer")


@pytest.fixture(scope="module")
def _needs_no_sanitizer():
    # `up` starts nginx as it is; a module with ASan would need the library preloaded.
    assert not is_asan_build(), "run these on another build"


@pytest.fixture
def state(tmp_path):
    """A state folder; whatever runs in it at the end is ended."""
    folder = tmp_path / "state"
    yield folder
    heddle("down", "--state", folder)


def environment():
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("OPENAI_", "HEDDLE_", "CLINIC_"))}
    return kept | {"HEDDLE_BUILD": str(build_folder())}


def heddle(*arguments, folder=ROOT):
    return subprocess.run([HEDDLE, *map(str, arguments)], capture_output=True, text=True, cwd=folder,
                          env=environment(), timeout=SECONDS, check=False)


def up(state, *more):
    done = heddle("up", "--detach", "--state", state, "--port", "0", *more)
    assert done.returncode == 0, done.stderr
    return re.search(r"http://127\.0\.0\.1:\d+", done.stdout)[0], done.stdout


def pids(state):
    found = json.loads(heddle("status", "--json", "--state", state).stdout)["pids"]
    return found


def eventually(condition, what):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)  # the pace of polling


def answers(url):
    with contextlib.suppress(OSError):
        return get_json(url + "/ok") == {"ok": True}
    return False


def chat(url, **body):
    return get_json(url + "/chat", json.dumps(body).encode())


@pytest.mark.parametrize("store", ["sqlite", "postgres:local"])
def test_up_prints_commands_that_work_and_a_conversation_survives(state, store):
    more = [] if store == "sqlite" else ["--store", store]
    url, text = up(state, *more)
    commands = [line for line in text.splitlines() if line.startswith("  curl ")]
    assert len(commands) == 3
    outputs = []
    for command in commands:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=SECONDS,
                              check=True)
        outputs.append(done.stdout)
    assert json.loads(outputs[0])["reply"] == "Hello"
    spanish = json.loads(outputs[1])
    assert spanish["reply"] and spanish["status"] == "done", spanish
    assert outputs[2].startswith("event: metadata") and "event: values" in outputs[2]
    looks_at_postgres = "ok       fsync is on" in heddle("doctor", "--state", state).stdout
    assert looks_at_postgres == (store == "postgres:local")

    assert heddle("down", "--state", state).returncode == 0
    assert not answers(url)
    url, _ = up(state, *more)
    thread = spanish["thread_id"]
    before = get_json(f"{url}/threads/{thread}/state")["values"]["messages"]
    again = chat(url, agent="appointment", thread_id=thread, message="Gracias")
    assert again["thread_id"] == thread
    after = get_json(f"{url}/threads/{thread}/state")["values"]["messages"]
    assert after[:len(before)] == before and len(after) > len(before)


def test_status_and_logs_and_down(state):
    done = heddle("status", "--state", state)
    assert done.returncode == 3 and "nothing runs" in done.stdout
    url, _ = up(state, "--engines", "3", "--workers", "1")
    done = heddle("status", "--state", state)
    assert done.returncode == 0 and url in done.stdout
    for name in ("supervisor", "nginx", "engine-1", "engine-2", "engine-3", "owned threads",
                 "running runs", "waiting runs"):
        assert name in done.stdout
    assert "ready" in heddle("logs", "--state", state, "engine-2").stdout
    done = heddle("logs", "--state", state, "nobody")
    assert done.returncode == 1 and "engine-2" in done.stderr
    running = [Identity.of(pid) for pid in pids(state).values()]
    assert heddle("down", "--state", state).returncode == 0
    assert not any(one.is_alive() for one in running)
    assert "nothing runs" in heddle("down", "--state", state).stdout


def test_what_dies_is_started_again(state):
    url, _ = up(state)
    first = chat(url, agent="echo", message="one")
    before = pids(state)
    for name in ("engine-1", "engine-2", "nginx", "clinic"):
        os.kill(before[name], signal.SIGKILL)
    eventually(lambda: all(pids(state).get(name, before[name]) != before[name] for name in (
        "engine-1", "engine-2", "nginx", "clinic")), "all of them run again")
    eventually(lambda: answers(url), "it serves again")
    assert chat(url, agent="echo", message="two", thread_id=first["thread_id"])["reply"] == "two"
    log = (state / "log/supervisor.log").read_text()
    assert "engine-1" in log and "SIGKILL" in log and "runs again" in log


def test_two_instances_side_by_side(state, tmp_path):
    other = tmp_path / "other"
    try:
        one, _ = up(state)
        two, _ = up(other)
        assert one != two and answers(one) and answers(two)
        thread = chat(one, agent="echo", message="x")["thread_id"]
        with pytest.raises(OSError, match="404"):
            get_json(f"{two}/threads/{thread}/state")
        heddle("down", "--state", other)
        assert answers(one)
    finally:
        heddle("down", "--state", other)


def test_ctrl_c_ends_a_foreground_instance(state):
    with subprocess.Popen([HEDDLE, "up", "--state", state, "--port", "0"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=environment(),
                          start_new_session=True) as process:
        text = ""
        while "Ctrl-C" not in text:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            text += line
        running = [Identity.of(pid) for pid in pids(state).values()]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(SECONDS) == 0
        assert "ended" in process.stderr.read()
    assert not any(one.is_alive() for one in running)


def test_a_killed_supervisor_leaves_nothing_for_ever(state):
    url, _ = up(state)
    running = pids(state)
    port = url.rsplit(":", 1)[1]
    os.kill(running["supervisor"], signal.SIGKILL)
    eventually(lambda: heddle("status", "--state", state).returncode == 3, "status sees it")
    done = heddle("up", "--detach", "--state", state, "--port", port)
    assert done.returncode == 0, done.stderr
    assert answers(url)
    second = pids(state)
    assert not set(running.values()) & set(second.values())
    os.kill(second["supervisor"], signal.SIGKILL)
    ended = [Identity.of(pid) for pid in second.values()]
    assert heddle("down", "--state", state).returncode == 0
    assert not any(one.is_alive() for one in ended if one is not None)
    assert not answers(url)


def test_down_spares_a_process_that_got_an_old_pid(state):
    up(state)
    heddle("down", "--state", state)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        found = Identity.of(bystander.pid)
        for name in ("supervisor", "engine-1"):
            Identity(found.pid, found.started - 1, found.boot).write(state / "run/pids" / name)
        heddle("down", "--state", state)
        assert bystander.poll() is None
        bystander.kill()


def test_mistakes_are_told_with_what_to_do(state, tmp_path):
    url, _ = up(state)
    taken = url.rsplit(":", 1)[1]
    other = tmp_path / "other"
    broken = tmp_path / "agents/wrong"
    broken.mkdir(parents=True)
    (broken / "agent.yaml").write_text("agent: wrong\nnodes: 7\n")
    for arguments, words in (
            (("--state", state), ["runs already", "./heddle down"]),
            (("--state", other, "--port", taken), ["Address already in use", "--port"]),
            (("--state", other, "--port", "x"), ["--port"]),
            (("--state", other, "--engines", "0"), ["--engines must be 1"]),
            (("--state", other, "--store", "mysql:x"), ["is no store", "postgres:local"]),
            (("--state", other, "--agents", tmp_path), ["holds no NAME/agent.yaml", "--agents"]),
            (("--state", other, "--port", "0", "--agents", tmp_path / "agents"),
             ["agent.yaml:2", "docs/agents.md"]),
            (("--state", other, "--port", "0", "--store", "postgres://nobody@127.0.0.1:1/none"),
             ["status 4", "server up"])):
        done = heddle("up", "--detach", *arguments)
        assert done.returncode not in (0, 3), (arguments, done.stdout)
        for word in words:
            assert word in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
    assert heddle("status", "--state", other).returncode == 3, "a failed start leaves nothing"
    done = heddle("dance")
    assert done.returncode == 1 and "no command dance" in done.stderr


def test_a_password_is_not_in_the_list_of_processes(state):
    """The engine cannot connect; what it was started with is looked at meanwhile."""
    done = heddle("up", "--detach", "--state", state, "--port", "0", "--store",
                  f"postgres://u:se%20cret@127.0.0.1:{free_port()}/d")
    assert done.returncode != 0
    assert "se%20cret" not in done.stderr
    for path in state.rglob("*"):
        if path.is_file() and path.name != "engine.yaml":
            assert "se%20cret" not in path.read_text(errors="replace"), path
        assert path.name != "engine.yaml", "the private file goes with the instance"


def test_a_long_state_path_and_another_folder(tmp_path):
    """Socket paths have 107 bytes; ./heddle may be called from anywhere."""
    state = tmp_path / ("long-" * 30)
    done = heddle("up", "--detach", "--state", state, "--port", "0", folder=tmp_path)
    try:
        assert done.returncode == 0, done.stderr
        instance = json.loads((state / "run/instance.json").read_text())
        sockets = pathlib.Path(instance["sockets"])
        assert sockets != state / "run" and list(sockets.glob("*.sock"))
    finally:
        heddle("down", "--state", state)
    assert not sockets.exists()


@pytest.mark.skipif("os.geteuid() != 0 and shutil.which('setpriv') is None",
                    reason="cannot become another user")
def test_an_ordinary_user(tmp_path):
    """Root starts it as nobody; an ordinary user is one already."""
    folder = pathlib.Path(f"/tmp/heddle-user-{os.getpid()}")
    folder.mkdir(mode=0o700)
    become = []
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
        become = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        if not reachable_by_others(ROOT) or not reachable_by_others(build_folder()):
            copy = folder / "tree"
            copy_tree(copy)
            shutil.chown(folder, "nobody", "nogroup")
        else:
            copy = ROOT
    else:
        copy = ROOT
    build = build_folder() if copy == ROOT else copy / "build"
    values = environment() | {"HEDDLE_BUILD": str(build), "HOME": str(folder),
                              "XDG_RUNTIME_DIR": "/nonexistent"}

    def run(*arguments):
        return subprocess.run([*become, copy / "heddle", *arguments, "--state", folder / "state"],
                              capture_output=True, text=True, cwd="/", env=values,
                              timeout=SECONDS, check=False)
    try:
        done = run("up", "--detach", "--port", "0", "--store", "postgres:local")
        assert done.returncode == 0, done.stderr
        url = re.search(r"http://127\.0\.0\.1:\d+", done.stdout)[0]
        assert chat(url, agent="echo", message="x")["reply"] == "x"
        assert "[alert]" not in (folder / "state/log/nginx.log").read_text()
    finally:
        run("down")
        shutil.rmtree(folder, ignore_errors=True)


def reachable_by_others(folder):
    return all(path.stat().st_mode & 0o001 for path in [folder, *folder.parents])


def copy_tree(copy):
    """What `up` reads, where another user can read it."""
    copy.mkdir()
    shutil.copy(HEDDLE, copy)
    for name in ("scripts", "agents"):
        shutil.copytree(ROOT / name, copy / name)
    for name in ("engine/app/heddle-engine", "ngx_module/ngx_http_heddle_module.so"):
        target = copy / "build" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(build_folder() / name, target)
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o755)
    copy.parent.chmod(0o755)
