"""Starts the processes of one instance in order, starts again what dies, and ends them in order."""
import select
import signal
import socket
import sys
import time

from local.processes import LocalError

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
HEALTHY_SECONDS = 60.0  # after this long a death counts as the first again


def log(text):
    """One line to stderr, which is the terminal or log/supervisor.log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)


class _Watched:
    def __init__(self, service):
        self.service = service
        self.started_at = time.monotonic()
        self.deaths = 0
        self.again_at = None


class Supervisor:
    """Owns services. Signals: SIGINT, SIGTERM and SIGHUP end it; the second one kills at once."""

    def __init__(self):
        self._watched = []
        self._stops = 0
        self._holding = False
        self._wake, self._awake = socket.socketpair()
        for end in (self._wake, self._awake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._awake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_stop)

    def _on_stop(self, number, _frame):
        self._stops += 1
        if self._stops == 1 and not self._holding:
            raise Stopped(signal.Signals(number).name)
        if self._stops == 2:
            log("asked again: ending everything at once")
            for watched in self._watched:
                if watched.service.is_running():
                    watched.service.identity.send(signal.SIGKILL)

    def start(self, service):
        """Starts it and watches it from now on. Those started first are ended last."""
        self._watched.append(_Watched(service))
        self._start(service)

    def _start(self, service):
        # A signal in between would leave a process that nobody knows.
        self._holding = True
        try:
            service.start()
        finally:
            self._holding = False
        if self._stops == 1:
            raise Stopped("stopped while starting")

    def run(self):
        """Returns when a signal says so (as Stopped)."""
        while True:
            waits = [watched.again_at - time.monotonic() for watched in self._watched
                     if watched.again_at is not None]
            timeout = max(0.0, min(waits)) if waits else None
            if select.select([self._wake], [], [], timeout)[0]:
                self._wake.recv(4096)
            for watched in self._watched:
                self._look_at(watched)

    def _look_at(self, watched):
        service, now = watched.service, time.monotonic()
        if watched.again_at is None:
            if service.is_running():
                return
            if now - watched.started_at > HEALTHY_SECONDS:
                watched.deaths = 0
            wait = BACKOFF_SECONDS[min(watched.deaths, len(BACKOFF_SECONDS) - 1)]
            watched.deaths += 1
            watched.again_at = now + wait
            log(f"{service.name} (pid {service.pid}) ended with {service.status_text()}; "
                f"starting it again in {wait:g} s; its log: {service.log}")
        elif now >= watched.again_at:
            watched.again_at = None
            watched.started_at = now
            try:
                service.sweep_group()
                self._start(service)
                log(f"{service.name} runs again as pid {service.pid}")
            except LocalError as error:
                log(f"{service.name}: {error}")
                watched.again_at = now + BACKOFF_SECONDS[-1]

    def stop(self):
        """Ends everything, last started first. Returns the names of those that had to be killed."""
        self._stops = max(self._stops, 1)
        killed = []
        while self._watched:
            service = self._watched[-1].service
            if not service.stop():
                killed.append(service.name)
            self._watched.pop()
        return killed


class Stopped(Exception):
    """The user or the system asked for the end."""
