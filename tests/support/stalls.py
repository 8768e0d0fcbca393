"""Engines that stand still: where the machine did it, by their own words or the clock; where a test
does it, by SIGSTOP."""
import os
import pathlib
import re
import signal
import threading
import time

from local.processes import wait_until
from wire_client import WireClient, WireError

# A machine that stands still for a lease costs an engine its threads; their runs are begun again.
LOST = re.compile(r".*(?:lease lost|thread \S+ lost):.*")
STOP_TRIES = 20
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.05
PAUSE_SECONDS = 1.0
WRITE_SECONDS = 1.0  # less than a lease


def lost(*engines):
    """What these say, in all their lives, of leases and threads that they have lost. Of an engine
    that nobody stopped it excuses what the loss costs: 503, a further attempt of a run."""
    return [line for engine in engines
            for line in LOST.findall(engine.log.read_text(errors="replace"))]


class Watch:
    """Looks at the clock all the time while the block lasts; `pauses` are those, in seconds, in
    which it could not: then the machine stood still, and not only the engines."""

    def __init__(self):
        self.pauses = []
        self._is_over = threading.Event()
        self._os_thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self):
        self._os_thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        self._os_thread.join()

    def _look(self):
        last = time.monotonic()
        while not self._is_over.wait(LOOK_SECONDS):
            now = time.monotonic()
            if now - last > PAUSE_SECONDS:
                self.pauses.append(now - last)
            last = now


def stop(cluster, engine):
    """SIGSTOP. On SQLite not while it writes, which would keep all others from writing (ADR 0006)
    until it goes on."""
    other = next(one for one in cluster.engines if one is not engine and one.is_running())
    for _ in range(STOP_TRIES):
        os.kill(engine.pid, signal.SIGSTOP)
        wait_until(lambda: _stands_still(engine.pid), f"{engine.name} stands still", STOP_SECONDS)
        if not cluster.store_url.startswith("sqlite:") or _writes(other):
            return
        os.kill(engine.pid, signal.SIGCONT)
    raise AssertionError(f"{other.name} wrote nothing, {STOP_TRIES} times")


def _stands_still(pid):
    """All of its OS threads; one that waits for the disk stops when it has come."""
    def state(path):
        text = path.read_text()
        return text[text.rindex(")") + 2]
    return all(state(path) == "T" for path in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"))


def _writes(engine):
    try:
        with WireClient(engine.listen, seconds=WRITE_SECONDS) as client:
            return client.request("POST", "/threads", b"{}")[0] == 200
    except WireError:
        return False
