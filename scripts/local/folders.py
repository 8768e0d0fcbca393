"""The state folder of one instance, and a place for its sockets."""
import fcntl
import json
import os
import pathlib
import shutil
import stat
import tempfile

from local.processes import Identity, LocalError

SOCKET_PATH_MAX = 107  # sun_path of Linux holds 108 bytes with its end
LONGEST_SOCKET = "/pg/.s.PGSQL.5432.lock"
FORBIDDEN = "\"'\\$;{}\n\r\t"


def already_running(state):
    return LocalError(f"it runs already in {state.folder}",
                      "./heddle status, ./heddle down, or another --state and --port.")


class State:
    """Everything of one instance lies under `folder`:

    nginx.conf heddle.db postgres/ clinic.json    what it serves with
    log/NAME.log                                  one per process, the last start's in NAME.log.1
    run/pids/NAME run/instance.json run/lock      what runs
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(os.path.abspath(folder))
        bad = sorted(set(str(self.folder)) & set(FORBIDDEN))
        if bad:
            raise LocalError(f"the state folder's path holds {' '.join(map(repr, bad))}",
                             "Choose another with --state DIR.")
        self.logs = self.folder / "log"
        self.run = self.folder / "run"
        self.pids = self.run / "pids"
        self.temporary = self.folder / "tmp"
        self._instance = self.run / "instance.json"
        self._lock = None

    def make(self):
        try:
            for folder in (self.folder, self.logs, self.run, self.pids, self.temporary):
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"cannot make the state folder: {error}",
                             "Choose one that you may write to with --state DIR.") from error

    def lock(self):
        """Held until this process ends. LocalError if another process holds it."""
        self._lock = open(self.run / "lock", "a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise already_running(self) from None

    def pid_file(self, name):
        return self.pids / name

    def identities(self):
        """{name: Identity} of all pid files, whether they still run or not."""
        if not self.pids.is_dir():
            return {}
        found = {path.name: Identity.read(path) for path in sorted(self.pids.iterdir())
                 if path.suffix != ".new"}
        return {name: identity for name, identity in found.items() if identity is not None}

    def log(self, name):
        return self.logs / f"{name}.log"

    def fresh_log(self, name):
        """The path of an empty log; the one of the last start is kept as NAME.log.1."""
        path = self.log(name)
        if path.exists():
            path.rename(path.with_suffix(".log.1"))
        path.touch(mode=0o640)
        return path

    def write_instance(self, values):
        whole = self._instance.with_suffix(".new")
        whole.write_text(json.dumps(values, indent=1) + "\n")
        whole.rename(self._instance)

    def read_instance(self):
        """None if nothing was started here."""
        try:
            return json.loads(self._instance.read_text())
        except (OSError, ValueError):
            return None

    def forget(self):
        """After a clean end: no pid files, no instance, no folder of sockets elsewhere."""
        instance = self.read_instance() or {}
        remove_sockets(instance.get("sockets"), self.run)
        self._instance.unlink(missing_ok=True)
        left = [*self.pids.glob("*"), *self.run.glob("*.sock"), self.run / "engine.yaml"]
        for path in left:
            path.unlink(missing_ok=True)


def others_may_pass(folder):
    """Whether every user can reach what lies in it, if that itself allows it."""
    return all(path.stat().st_mode & 0o001 for path in [folder, *folder.parents])


def sockets_folder(run, with_postgres=False):
    """`run` if socket paths in it are short enough, else a new short folder that only we may write.

    As root others may pass through it: Postgres runs as another user and has a folder below.
    """
    mode = 0o711 if os.geteuid() == 0 else 0o700
    reachable = os.geteuid() != 0 or not with_postgres or others_may_pass(run)
    if reachable and len(os.fsencode(f"{run}{LONGEST_SOCKET}")) <= SOCKET_PATH_MAX:
        return run
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    fits = len(os.fsencode(base)) + len("/heddle-12345678") + len(LONGEST_SOCKET) <= SOCKET_PATH_MAX
    if not base or not fits or not os.access(base, os.W_OK) or os.geteuid() == 0:
        base = "/tmp"
    folder = pathlib.Path(tempfile.mkdtemp(prefix="heddle-", dir=base))
    folder.chmod(mode)
    return folder


def remove_sockets(folder, run):
    """Removes a folder that sockets_folder made; never the state folder's own."""
    if not folder or pathlib.Path(folder) == pathlib.Path(run):
        return
    folder = pathlib.Path(folder)
    try:
        found = folder.lstat()
    except OSError:
        return
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if ours and folder.name.startswith("heddle-"):
        shutil.rmtree(folder, ignore_errors=True)
