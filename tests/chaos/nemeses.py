"""What is done to the processes, to the network and to the disk. Each class is one kind; an object is
one strike, and what it writes down must let others tell whether it bit (checker.py: bites)."""
import asyncio
import os
import re
import signal
import time

from local.processes import Identity, LocalError, wait_until
from network import MODES

LEASE_SECONDS = 2.0
DRAIN_SECONDS = 10.0
RELOADS = 3  # in a row: in one moment there may be no stream
RELOAD_SECONDS = 10.0
FULL_SECONDS = 20.0
FILL_BYTES = 1 << 20
PANICS = 0.5  # probability that the log of writes finds no room either


class Strike:
    """begin() breaks something, end() mends it or lets it mend itself. In between the clients go on.

    kind, target   what was done to whom
    begun, mended  seconds since the epoch
    seconds        that lie between, about
    evidence       what was seen of its effect, and `failed` if it could not be carried out
    """

    kind = ""
    about = ""

    def __init__(self, stack, chance):
        self.stack, self.chance = stack, chance
        self.target = ""
        self.seconds = chance.uniform(0.8, 2.2)
        self.begun = self.mended = 0.0
        self.resumed = None  # seconds from `mended` until every client was served again
        self.evidence = {}
        self.failed = ""

    async def begin(self):
        self.begun = time.time()
        await asyncio.to_thread(self._begin)

    async def end(self):
        await asyncio.to_thread(self._end)
        self.mended = time.time()

    def _begin(self):
        raise NotImplementedError

    def _end(self):
        raise NotImplementedError

    def as_json(self):
        return {name: getattr(self, name) for name in (
            "kind", "target", "begun", "mended", "resumed", "evidence", "failed")}

    def _busy_engine(self):
        """One of those with the most runs in work."""
        loads = [(engine.load(), self.chance.random(), engine) for engine in self.stack.engines]
        load, _, engine = max(loads, key=lambda each: each[:2])
        self.target = engine.name
        self.evidence |= {"session": engine.session, "runs": load}
        return engine


class Kill(Strike):
    kind, about = "kill", "kill -9 of an engine; started again later"

    def _begin(self):
        self._engine = self._busy_engine()
        self._engine.kill9()
        self.evidence["status"] = self._engine.process.returncode

    def _end(self):
        self._engine.start_until_ready()


class Pause(Strike):
    kind, about = "pause", "SIGSTOP of an engine for longer than its lease, then SIGCONT"

    def __init__(self, stack, chance):
        super().__init__(stack, chance)
        self.seconds = LEASE_SECONDS + chance.uniform(0.8, 2.0)

    def _begin(self):
        self._engine = self._busy_engine()
        os.kill(self._engine.pid, signal.SIGSTOP)

    def _end(self):
        os.kill(self._engine.pid, signal.SIGCONT)


class Restart(Strike):
    kind, about = "restart", "SIGTERM to an engine, which drains; started again when it is gone"

    def _begin(self):
        engine = self._engine = self._busy_engine()
        begun = time.monotonic()
        os.kill(engine.pid, signal.SIGTERM)
        engine.killed = True  # from now on it may be gone
        try:
            wait_until(lambda: engine.process.poll() is not None, "it drains", DRAIN_SECONDS)
        except LocalError as error:
            self.failed = str(error)
            engine.kill9()
        self.evidence |= {"status": engine.process.returncode,
                          "seconds": round(time.monotonic() - begun, 2)}

    def _end(self):
        self._engine.start_until_ready()


class Reload(Strike):
    kind, about = "reload", "nginx -s reload, three times: streams are taken up again at new workers"

    def _begin(self):
        edge = self.stack.edge
        self.target = edge.name
        longest = 0.0
        for _ in range(RELOADS):
            old = set(edge.worker_pids())
            edge.reload()
            begun = time.monotonic()
            try:
                wait_until(lambda gone=old: not gone & set(edge.worker_pids()),
                           "the old workers end", RELOAD_SECONDS)
            except LocalError as error:
                self.failed = str(error)
            longest = max(longest, time.monotonic() - begun)
        self.evidence |= {"old": sorted(old), "new": sorted(set(edge.worker_pids()) - old),
                          "seconds": round(longest, 2)}

    def _end(self):
        pass


class WorkerKill(Strike):
    kind, about = "worker", "kill -9 of an nginx worker; its master starts another"

    def _begin(self):
        edge = self.stack.edge
        victim = Identity.of(self.chance.choice(sorted(edge.worker_pids())))
        self.target = f"{edge.name} worker {victim.pid}"
        victim.send(signal.SIGKILL)
        wait_until(lambda: not victim.is_alive(), "the worker dies", RELOAD_SECONDS)
        wait_until(lambda: len(edge.worker_pids()) == self.stack.cluster.workers,
                   "there is another worker", RELOAD_SECONDS)
        self.evidence |= {"old": [victim.pid], "new": sorted(edge.worker_pids())}

    def _end(self):
        pass


class Cut(Strike):
    """Some links at once, all in the same way."""

    modes = MODES

    def __init__(self, stack, chance):
        super().__init__(stack, chance)
        self._mode = chance.choice(self.modes)

    def _links(self):
        raise NotImplementedError

    def _begin(self):
        self._cut = self._links()
        self.target = ", ".join(link.name for link in self._cut) + f" ({self._mode})"
        self._before = [link.snapshot() for link in self._cut]
        for link in self._cut:
            link.cut(self._mode)

    def _end(self):
        for link in self._cut:
            link.heal()
        for link, before in zip(self._cut, self._before):
            for name, value in link.count.since(before).items():
                self.evidence[name] = self.evidence.get(name, 0) + value


class CutEdge(Cut):
    kind, about = "cut-edge", "network between nginx and an engine"

    def _links(self):
        return [self.chance.choice(self.stack.engines).front]


class CutStore(Cut):
    kind, about = "cut-store", "network between one engine, or all, and the primary"
    # Held for longer than a lease, writes arrive when others have their threads: half of the time.
    modes = (*MODES, *("hold" for _ in range(len(MODES) - 2)))

    def __init__(self, stack, chance):
        super().__init__(stack, chance)
        if self._mode == "hold":
            self.seconds = LEASE_SECONDS + chance.uniform(1.5, 2.5)

    def _links(self):
        primary = self.stack.pair.primary
        engines = self.stack.engines if self.chance.random() < 0.3 \
            else [self.chance.choice(self.stack.engines)]
        return [engine.backs[primary] for engine in engines]


class CutEngine(Cut):
    kind, about = "cut-engine", "network between one engine and everybody"

    def __init__(self, stack, chance):
        super().__init__(stack, chance)
        self.seconds = LEASE_SECONDS + chance.uniform(0.5, 2.0)

    def _links(self):
        engine = self.chance.choice(self.stack.engines)
        return [engine.front, *engine.backs.values()]


class CutStandby(Cut):
    kind, about = "cut-standby", "network between the primary and its synchronous standby"

    def _links(self):
        return [self.stack.replication]


class CutClients(Cut):
    kind, about = "cut-clients", "network between the clients and nginx"

    def _links(self):
        return [self.stack.client_link]


class Failover(Strike):
    kind = "failover"
    about = "kill -9 of the primary, the standby is promoted; the dead one becomes a standby"

    def _begin(self):
        pair = self.stack.pair
        # Not during a cut of its own replication: what waits for it is neither lost nor acknowledged.
        wait_until(pair.is_synchronous, "the standby is synchronous", FULL_SECONDS)
        self.target = f"{pair.primary.name} to {pair.standby.name}"
        before = pair.primary.timeline()
        begun = time.time()
        pair.kill_primary()
        pair.promote()
        promoted = time.time()
        self.evidence |= {"timelines": [before, pair.primary.timeline()], "promoted": promoted,
                          "seconds": round(promoted - begun, 2)}

    def _end(self):
        self.stack.pair.rejoin()


class Crash(Strike):
    kind, about = "crash", "kill -9 of the primary, which is started again in its place"

    def _begin(self):
        server = self.stack.pair.primary
        self.target = server.name
        server.identity.send(signal.SIGKILL)
        server.process.wait()
        self.evidence |= {"status": server.process.returncode, "pid": server.pid}

    def _end(self):
        self.stack.pair.primary.start_until_accepting()
        self.evidence["pid_after"] = self.stack.pair.primary.pid


class DiskFull(Strike):
    kind, about = "disk-full", "the primary's file system is filled up; later there is room again"
    refused = re.compile(r"No space left on device")

    def __init__(self, stack, chance):
        super().__init__(stack, chance)
        self.seconds = chance.uniform(1.0, 3.0)

    def _begin(self):
        server = self._server = self.stack.pair.primary
        disk = self.stack.disk_of(server)
        self.target = f"the disk of {server.name}"
        self._filler = disk / "filler"
        self._seen = server.log.stat().st_size
        self._pid = server.pid
        with open(self._filler, "wb", buffering=0) as file:
            try:
                self._fill(file, disk)
                if self.chance.random() < PANICS:
                    self.target += ", until it panics"
                    self._panic()
            except LocalError as error:
                self.failed = str(error)
        self.evidence["filler_bytes"] = self._filler.stat().st_size

    def _fill(self, file, disk):
        """All there is, again and again: the server frees some when it removes old files."""
        deadline = time.monotonic() + FULL_SECONDS
        while self._refusals() == 0:
            if time.monotonic() > deadline:
                raise LocalError(f"the store was not refused anything within {FULL_SECONDS:g} s")
            free = os.statvfs(disk)
            size = free.f_bavail * free.f_frsize
            try:
                while size > 0:
                    size -= os.write(file.fileno(), bytes(min(size, FILL_BYTES)))
            except OSError:
                pass
            time.sleep(0.05)  # the pace of filling

    def _panic(self):
        """Where there is no room for the log of writes the server must stop: what it has is used up."""
        def panicked():
            self._server.ask("SELECT pg_switch_wal()", check=False)
            return "PANIC:" in self._log() or not self._server.is_running()
        wait_until(panicked, "the server panics", FULL_SECONDS)

    def _log(self):
        with open(self._server.log, "rb") as log:
            log.seek(self._seen)
            return log.read().decode(errors="replace")

    def _refusals(self):
        return len(self.refused.findall(self._log()))

    def _end(self):
        self._filler.unlink()
        self._server.start_until_accepting()
        self.evidence |= {"refusals": self._refusals(), "panics": self._log().count("PANIC:"),
                          "restarted": self._server.pid != self._pid}


ENGINE_KINDS = (Kill, Pause, Restart, CutEdge, CutStore, CutEngine)
EDGE_KINDS = (Reload, WorkerKill, CutClients)
STORE_KINDS = (Failover, Crash, DiskFull, CutStandby)
ALL = (*ENGINE_KINDS, *EDGE_KINDS, *STORE_KINDS)
