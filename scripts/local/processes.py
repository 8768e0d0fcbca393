"""One process of ours: started in a group of its own, known by pid and start time, ended in steps."""
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import time

POLL_SECONDS = 0.02
KILL_SECONDS = 5.0


class LocalError(Exception):
    """What went wrong (first argument), what to do about it, and a log whose end explains it."""

    def __init__(self, what, what_to_do="", log=None):
        super().__init__(what)
        self.what_to_do = what_to_do
        self.log = log


def tool(name, package):
    """The path of a program; /usr/sbin is not in the PATH of an ordinary user."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise LocalError(f"{name} is missing", f"./heddle doctor (package {package})")
    return path


def tail(path, lines=20):
    """The last lines of a file; nothing if there is none."""
    try:
        text = pathlib.Path(path).read_text(errors="replace")
    except (OSError, TypeError):
        return []
    return text.splitlines()[-lines:]


def wait_until(condition, what, seconds, process=None):
    """Polls until `condition()` is true and returns that. LocalError at the deadline, or at once if
    `process` (a Service) has ended."""
    deadline = time.monotonic() + seconds
    log = process.log if process is not None else None
    while True:
        value = condition()
        if value:
            return value
        if process is not None and not process.is_running():
            raise LocalError(f"{what}: {process.name} ended with {process.status_text()}", log=log)
        if time.monotonic() > deadline:
            raise LocalError(f"{what}: not within {seconds:g} s", log=log)
        time.sleep(POLL_SECONDS)


def _stat(pid):
    """(state, process group, start time in ticks since boot) or None."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2:].split()
    return fields[0], int(fields[2]), int(fields[19])


def _boot_id():
    return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclasses.dataclass(frozen=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid):
        """None if there is no such process (any more)."""
        found = _stat(pid)
        return cls(pid, found[2], _boot_id()) if found else None

    @classmethod
    def read(cls, path):
        """From a pid file; None if there is none, or none that was written to its end."""
        try:
            pid, started, boot = pathlib.Path(path).read_text().split()
            return cls(int(pid), int(started), boot)
        except (OSError, ValueError):
            return None

    def write(self, path):
        path = pathlib.Path(path)
        whole = path.with_suffix(".new")
        whole.write_text(f"{self.pid} {self.started} {self.boot}\n")
        whole.rename(path)

    def is_alive(self):
        found = _stat(self.pid)
        return (found is not None and found[0] not in "ZX" and found[2] == self.started
                and self.boot == _boot_id())

    def group(self):
        """What the process has left of its group, itself included, as identities. Only processes that
        began no earlier than it did: its pid may have been given again since."""
        found = []
        if self.boot != _boot_id():
            return found
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            stat = _stat(entry.name)
            if stat and stat[0] not in "ZX" and stat[1] == self.pid and stat[2] >= self.started:
                found.append(Identity(int(entry.name), stat[2], self.boot))
        leader = _stat(self.pid)
        if leader and leader[2] != self.started:
            return []  # the group belongs to somebody else by now
        return found

    def send(self, number):
        """Nothing if it is gone."""
        if self.is_alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


def end(identity, steps, is_gone=None):
    """Sends each (signal, seconds to wait) in turn until the process is gone, then SIGKILL to what is
    left of its group. Returns the number of the step that was enough: 0 is the graceful one."""
    is_gone = is_gone or (lambda: not identity.is_alive())
    used = 0
    for used, (number, seconds) in enumerate(steps):
        if is_gone():
            break
        identity.send(number)
        deadline = time.monotonic() + seconds
        while not is_gone() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if is_gone():
            break
    else:
        used = len(steps)
    for member in identity.group():
        member.send(signal.SIGKILL)
    deadline = time.monotonic() + KILL_SECONDS
    while not is_gone() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return used


class Service:
    """A child process whose output goes to a log file.

    `steps` is how it is ended: (signal, seconds) pairs, gentle first; SIGKILL follows by itself.
    The child leads a process group, so that Ctrl-C in a terminal reaches only its parent.
    """

    def __init__(self, name, command, log, *, steps, env=None, pid_file=None):
        self.name = name
        self.command = [str(part) for part in command]
        self.log = pathlib.Path(log)
        self.steps = steps
        self.env = env
        self.pid_file = pid_file
        self.process = None
        self.identity = None
        self._log_start = 0

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        with open(self.log, "ab") as out:
            self._log_start = out.tell()
            try:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.env,
                    cwd="/", start_new_session=True)
            except OSError as error:
                raise LocalError(f"cannot start {self.name}: {error}", "./heddle doctor") from error
        self.identity = Identity.of(self.process.pid)
        if self.pid_file is not None:
            self.identity.write(self.pid_file)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def status_text(self):
        code = self.process.returncode
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"status {code}"

    def output(self):
        """What it has written since its last start."""
        with open(self.log, "rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", "replace")

    def stop(self):
        """Returns False if it had to be killed."""
        if self.process is None:
            return True
        used = end(self.identity, self.steps, lambda: self.process.poll() is not None)
        self.process.wait()
        if self.pid_file is not None:
            pathlib.Path(self.pid_file).unlink(missing_ok=True)
        return used < len(self.steps)

    def sweep_group(self):
        """Ends what its group has left after the process itself died (nginx workers)."""
        for member in self.identity.group():
            member.send(signal.SIGKILL)
