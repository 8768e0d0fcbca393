"""A private Postgres cluster: a folder, a UNIX socket, nobody else's server.

It runs with what it ships with, so fsync and synchronous_commit are on. Postgres refuses to run as
root; started by root it runs as `nobody`, who owns its data and its socket folder.
"""
import glob
import os
import pathlib
import pwd
import signal
import subprocess
import tempfile
import urllib.parse

from local.folders import others_may_pass
from local.processes import LocalError, Service, tool, wait_until

ACCOUNT = "nobody"
STEPS = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0))  # fast, then immediate shutdown
START_SECONDS = 60.0
ASK_SECONDS = 60.0
HIDDEN_DATA = pathlib.Path("/var/lib/heddle")


def programs():
    """The folder of the newest server's programs."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"),
                   key=lambda path: int(path.split("/")[4]))
    if not found:
        raise LocalError("Postgres is missing", "./heddle doctor (package postgresql)")
    return pathlib.Path(found[-1]).parent


def data_folder(wanted):
    """`wanted`, or as root, if `nobody` cannot reach it (it lies under /root), a folder below
    /var/lib/heddle to which `wanted` then is a link."""
    wanted = pathlib.Path(wanted)
    if os.geteuid() != 0 or wanted.is_symlink() or others_may_pass(wanted.parent):
        return wanted.resolve()
    HIDDEN_DATA.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg-", dir=HIDDEN_DATA))
    wanted.symlink_to(folder)
    return folder


class Postgres(Service):
    """`data` is made with initdb if it is empty. `sockets` is a folder that must exist; the cluster
    gets its own below it. `url` is the database `heddle` for heddle-engine."""

    def __init__(self, data, sockets, log, *, pid_file=None, settings=()):
        self._programs = programs()
        self.data = data_folder(data)
        self.sockets = pathlib.Path(sockets) / "pg"
        self._as = []
        self._owner = None
        if os.geteuid() == 0:
            self._owner = pwd.getpwnam(ACCOUNT)
            self._as = [tool("setpriv", "util-linux"), f"--reuid={self._owner.pw_uid}",
                        f"--regid={self._owner.pw_gid}", "--clear-groups"]
            if not others_may_pass(pathlib.Path(sockets)):
                raise LocalError(f"{ACCOUNT} cannot reach {sockets}")
        command = self._as + [
            self._programs / "postgres", "-D", self.data, "-k", self.sockets,
            "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700",
            "-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "max_connections=200"]
        for setting in settings:
            command += ["-c", setting]
        super().__init__("postgres", command, log, steps=STEPS, pid_file=pid_file)

    @property
    def url(self):
        return self.url_of("heddle")

    def url_of(self, database):
        host = urllib.parse.quote(str(self.sockets), safe="")
        return f"postgres://heddle@/{database}?host={host}"

    def is_new(self):
        return not (self.data / "PG_VERSION").exists()

    def start(self):
        for folder in (self.data, self.sockets):
            folder.mkdir(mode=0o700, exist_ok=True)
            if self._owner is not None:
                os.chown(folder, self._owner.pw_uid, self._owner.pw_gid)
        if self.is_new():
            self._run([self._programs / "initdb", "-D", self.data, "-U", "heddle", "-A", "trust",
                       "-E", "UTF8", "--locale=C.UTF-8"], "initdb")
        super().start()

    def wait_ready(self):
        """Until it answers; then the database `heddle` exists."""
        wait_until(lambda: self.ask("SELECT 1", check=False) == "1", "Postgres starts",
                   START_SECONDS, self)
        self.create_database("heddle")

    def create_database(self, name):
        if self.ask(f"SELECT 1 FROM pg_database WHERE datname = '{name}'") != "1":
            self.ask(f'CREATE DATABASE "{name}"')

    def ask(self, statement, check=True, database="postgres"):
        """What psql prints for one statement, carried out as the owner."""
        try:
            done = subprocess.run(
                self._as + [self._programs / "psql", "-XAtq", "-h", self.sockets, "-U", "heddle",
                            "-d", database, "-c", statement],
                capture_output=True, text=True, cwd="/", check=False, timeout=ASK_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise LocalError(f"Postgres did not answer {statement!r} within {ASK_SECONDS:g} s",
                             log=self.log) from error
        if check and done.returncode != 0:
            raise LocalError(f"Postgres refused {statement!r}: {done.stderr.strip()}", log=self.log)
        return done.stdout.strip()

    def _run(self, command, what):
        done = subprocess.run([str(part) for part in self._as + command], capture_output=True,
                              text=True, cwd="/", check=False)
        if done.returncode != 0:
            raise LocalError(f"{what} failed: {(done.stdout + done.stderr).strip()}",
                             f"Is there room and may {ACCOUNT if self._owner else 'you'} write in "
                             f"{self.data}?")
