"""A Postgres primary and its synchronous standby, each a private cluster on UNIX sockets.

    with PostgresPair() as pair:
        … Cluster(…, store=pair.url) …
        pair.kill_primary()
        pair.promote()
        pair.rejoin()       # the one that was killed is the standby from now on
"""
import os
import pathlib
import shutil
import signal
import tempfile
import urllib.parse

from local.postgres import Postgres
from local.processes import Identity, wait_until

START_SECONDS = 60.0
STANDBY = "standby"


def children_of(pid):
    try:
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    found = [Identity.of(int(child)) for child in text.split()]
    return [identity for identity in found if identity is not None]


class Member(Postgres):
    """Either of the two. `name` is its own; which of them is the primary changes."""

    def __init__(self, name, data, sockets, log, settings):
        super().__init__(data, sockets, log, settings=settings)
        self.name = name
        self.follows = None  # where to copy the other one from, before the first start

    @property
    def socket(self):
        return self.sockets / ".s.PGSQL.5432"

    @property
    def processes(self):
        """Itself and its children; each of these leads a group of its own."""
        return [self.identity, *children_of(self.pid)]

    def start(self):
        if self.is_new() and self.follows is not None:
            for folder in (self.data, self.sockets):
                folder.mkdir(mode=0o700, exist_ok=True)
                if self._owner is not None:
                    os.chown(folder, self._owner.pw_uid, self._owner.pw_gid)
            source = f"{self.follows} user=heddle application_name={STANDBY}"
            self._run([self._programs / "pg_basebackup", "-D", self.data, "-d", source, "-R",
                       "-X", "stream", "-c", "fast", "--no-sync"], "pg_basebackup")
        super().start()

    def is_accepting(self):
        return self.is_running() and self.ask("SELECT 1", check=False) == "1"

    def start_until_accepting(self):
        """As a service manager that starts it again whenever it ends: after a crash it may find its
        predecessor's memory still in use, or its disk still full."""
        def tried():
            if not self.is_running():
                self.start()
            return self.is_accepting()
        wait_until(tried, f"{self.name} accepts connections", START_SECONDS)

    def timeline(self):
        """Of the log that it writes; only of a primary."""
        return int(self.ask("SELECT pg_walfile_name(pg_current_wal_lsn())")[:8], 16)


class PostgresPair:
    """`url` names both: whichever takes writes is meant.

    folders   two, for what either has on disk; else a temporary one for both
    route     given (follower, leader), the address (`host=… port=…`) at which the one finds the other
    settings  more of them, for both servers
    logs      the folder of their logs; else a temporary one
    """

    def __init__(self, folders=None, *, route=None, settings=(), logs=None):
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="heddle-test-pair-", dir="/tmp"))
        self._folder.chmod(0o711)
        self._logs = pathlib.Path(logs or self._folder)
        self._left = []  # processes of the primary that was killed
        self._route = route or (lambda _, leader: f"host={leader.sockets}")
        self.servers = [self._member(name, folder, settings) for name, folder in
                        zip("ab", folders or [self._folder / "data-a", self._folder / "data-b"])]
        self.primary, self.standby = self.servers

    def _member(self, name, data, settings):
        sockets = self._folder / name
        sockets.mkdir(mode=0o711)
        return Member(f"postgres-{name}", data, sockets, self._logs / f"postgres-{name}.log",
                      settings)

    @property
    def url(self):
        # The standby first: it must be passed over for as long as it is one.
        hosts = f"{self.standby.sockets},{self.primary.sockets}"
        return f"postgres://heddle@/heddle?host={urllib.parse.quote(hosts, safe='')}"

    def __enter__(self):
        try:
            self.primary.start()
            self.primary.wait_ready()
            self._join()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_):
        self._end()

    def _join(self):
        self.standby.follows = self._route(self.standby, self.primary)
        self.standby.start()
        wait_until(self._follows, "the standby follows", START_SECONDS, self.standby)
        self.primary.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
        self.primary.ask("SELECT pg_reload_conf()")
        wait_until(self.is_synchronous, "the standby is synchronous", START_SECONDS, self.standby)

    def _follows(self):
        return self.primary.ask("SELECT sync_state FROM pg_stat_replication "
                                f"WHERE application_name = '{STANDBY}' AND state = 'streaming'")

    def is_synchronous(self):
        return self._follows() == "sync"

    def _end(self):
        if self.standby.process is not None:
            self.resume_standby()
        for server in (self.primary, self.standby):
            server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill_primary(self):
        """As a crash would; its sessions end when they notice."""
        self._left = self.primary.processes
        self.primary.identity.send(signal.SIGKILL)
        self.primary.process.wait()

    def pause_standby(self):
        """It receives nothing until resume_standby()."""
        for process in self.standby.processes:
            process.send(signal.SIGSTOP)

    def resume_standby(self):
        for process in self.standby.processes:
            process.send(signal.SIGCONT)

    def promote(self):
        """Returns when the standby takes writes; from then on it is the primary."""
        assert self.standby.ask("SELECT pg_promote(true, 30)") == "t"
        assert self.standby.ask("SELECT pg_is_in_recovery()") == "f"
        self.primary, self.standby = self.standby, self.primary

    def rejoin(self):
        """What was the primary, and does not run, starts over as a synchronous standby."""
        assert not self.standby.is_running()
        wait_until(lambda: not any(process.is_alive() for process in self._left),
                   "the sessions of the killed primary end", START_SECONDS)
        shutil.rmtree(self.standby.data)
        self._join()
