"""A Postgres primary and its synchronous standby, each a private cluster on UNIX sockets.

    with PostgresPair() as pair:
        … Cluster(…, store=pair.url) …
        pair.kill_primary()
        pair.promote()
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
NAME = "standby"


class Standby(Postgres):
    """Copies `primary` before its first start and follows it."""

    def __init__(self, primary, data, sockets, log):
        super().__init__(data, sockets, log)
        self.name = NAME
        self._primary = primary

    def start(self):
        if self.is_new():
            for folder in (self.data, self.sockets):
                folder.mkdir(mode=0o700, exist_ok=True)
                if self._owner is not None:
                    os.chown(folder, self._owner.pw_uid, self._owner.pw_gid)
            source = f"host={self._primary.sockets} user=heddle application_name={NAME}"
            self._run([self._programs / "pg_basebackup", "-D", self.data, "-d", source, "-R",
                       "-X", "stream", "-c", "fast", "--no-sync"], "pg_basebackup")
        super().start()


class PostgresPair:
    """`url` names both: whichever takes writes is meant."""

    def __init__(self):
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="heddle-test-pair-", dir="/tmp"))
        self._folder.chmod(0o711)
        self.primary = Postgres(self._folder / "primary", self._sockets("a"),
                                self._folder / "primary.log")
        self.standby = Standby(self.primary, self._folder / "standby", self._sockets("b"),
                               self._folder / "standby.log")

    def _sockets(self, name):
        folder = self._folder / name
        folder.mkdir(mode=0o711)
        return folder

    @property
    def url(self):
        # The standby first: it must be passed over for as long as it is one.
        hosts = f"{self.standby.sockets},{self.primary.sockets}"
        return f"postgres://heddle@/heddle?host={urllib.parse.quote(hosts, safe='')}"

    def __enter__(self):
        try:
            self.primary.start()
            self.primary.wait_ready()
            self.standby.start()
            wait_until(self._follows, "the standby follows", START_SECONDS, self.standby)
            self.primary.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{NAME}'")
            self.primary.ask("SELECT pg_reload_conf()")
            wait_until(lambda: self._follows() == "sync", "the standby is synchronous",
                       START_SECONDS, self.standby)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_):
        self._end()

    def _follows(self):
        return self.primary.ask("SELECT sync_state FROM pg_stat_replication "
                                f"WHERE application_name = '{NAME}' AND state = 'streaming'")

    def _end(self):
        if self.standby.process is not None:
            self.resume_standby()
        for server in (self.primary, self.standby):
            server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill_primary(self):
        """As a crash would; its sessions end when they notice."""
        self.primary.identity.send(signal.SIGKILL)
        self.primary.process.wait()

    def pause_standby(self):
        """It receives nothing until resume_standby()."""
        for process in self._standby_processes():
            process.send(signal.SIGSTOP)

    def resume_standby(self):
        for process in self._standby_processes():
            process.send(signal.SIGCONT)

    def _standby_processes(self):
        # Each of them leads a group of its own.
        children = pathlib.Path(f"/proc/{self.standby.pid}/task/{self.standby.pid}/children")
        return [self.standby.identity,
                *[Identity.of(int(pid)) for pid in children.read_text().split()]]

    def promote(self):
        """Returns when the standby takes writes."""
        assert self.standby.ask("SELECT pg_promote(true, 30)") == "t"
        assert self.standby.ask("SELECT pg_is_in_recovery()") == "f"
