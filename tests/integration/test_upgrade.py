"""nginx's own upgrade on the fly: a new master from (possibly) another binary takes the sockets over,
then the old one leaves. Streams come back with their last id and miss nothing."""
import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import time

import aiohttp
import pytest

from api_client import connect, eventually, run_of, text_of
from clusters import STEPS, run, slow_cluster
from harness import reserved_port
from local.nginx import STEPS as NGINX_STEPS
from local.processes import Identity, end, tool, wait_until

STREAMS = 16
START_SECONDS = 20.0
LEAVE_SECONDS = 30.0   # they have 3 s for their streams
STEP_SECONDS = 2.0     # streams must be open still when there is a new master
CUT = (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)


class Daemon:
    """An nginx like the cluster's, in the background as in production: without `daemon on` nginx
    takes no upgrade."""

    def __init__(self, cluster, folder, ports):
        edge = cluster.edges[0]
        self.port, h2_port = ports
        self.error_log = folder / "error.log"
        (folder / "tmp").mkdir()
        text = (edge.folder / "nginx.conf").read_text()
        for old, new in (("daemon off;", ""), (str(edge.folder), str(folder)),
                         (f":{edge.port};", f":{self.port};"),
                         (f":{edge.h2_port} ", f":{h2_port} ")):
            assert old in text
            text = text.replace(old, new)
        conf = folder / "nginx.conf"
        conf.write_text(text)
        self._pid_file = folder / "nginx.pid"
        self._environment = cluster.nginx_environment
        self._command = [tool("nginx", "nginx"), "-p", folder, "-c", conf, "-e", self.error_log]
        self.masters = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        subprocess.run(self._command, env=self._environment, check=True, timeout=60)
        return self.newest()

    def newest(self):
        """The master that the pid file names, once it has workers that it did not have before."""
        def is_there():
            with contextlib.suppress(OSError, ValueError):
                found = Identity.of(int(self._pid_file.read_text()))
                if found is not None and found not in self.masters and self.workers(found):
                    return found
            return None
        self.masters.append(wait_until(is_there, "a new master with workers", START_SECONDS))
        return self.masters[-1]

    @staticmethod
    def workers(master):
        try:
            path = pathlib.Path(f"/proc/{master.pid}/task/{master.pid}/children")
            return {int(pid) for pid in path.read_text().split()}
        except OSError:
            return set()

    def stop(self):
        for master in self.masters:
            end(master, NGINX_STEPS)


@pytest.fixture(params=["sqlite"])
def cluster(request, tmp_path):
    with slow_cluster(tmp_path, latency=0.5, step_seconds=STEP_SECONDS, store=request.param,
                      engines=2, workers=2) as made:
        yield made
        made.check_clean()


@pytest.fixture
def daemon(cluster, tmp_path):
    folder = tmp_path / "daemon"
    folder.mkdir()
    with reserved_port() as port, reserved_port() as h2_port:
        made = Daemon(cluster, folder, (port, h2_port))
        made.start()
        yield made
        made.stop()
    log = made.error_log.read_text(errors="replace")
    assert not [line for line in log.splitlines() if "[alert]" in line or "[emerg]" in line], log


async def follow(api, number, begun):
    """One run's events; a stream that is cut is taken up again where it was, as the SDKs do."""
    thread = await api.new_thread()
    body = run_of("steps", f"client {number}", stream_mode=["updates", "values"])
    received, location, cuts = [], None, -1
    while True:
        cuts += 1
        with contextlib.suppress(*CUT):
            method, path = ("GET", location) if location else ("POST",
                                                               f"/threads/{thread}/runs/stream")
            headers = {"last-event-id": received[-1].id} if received else {}
            async with api.open_stream(method, path, None if location else body,
                                       headers=headers) as (response, events):
                location = response.headers["location"]
                async for event in events:
                    assert event.name != "error", event.data
                    received.append(event)
                    begun.add(number)
            if received and received[-1].name == "values" and \
                    len(received[-1].data["messages"]) == STEPS + 1:
                return thread, received, cuts


def test_an_upgrade_on_the_fly_loses_and_repeats_nothing(cluster, daemon):
    async def body():
        async with connect(daemon.url) as api:
            begun = set()
            clients = [asyncio.create_task(follow(api, n, begun)) for n in range(STREAMS)]

            async def all_begun():
                return len(begun) == STREAMS
            await eventually(all_begun, "every stream has begun", START_SECONDS)

            old = daemon.masters[0]
            leaving = daemon.workers(old)
            os.kill(old.pid, signal.SIGUSR2)
            await asyncio.to_thread(daemon.newest)
            os.kill(old.pid, signal.SIGWINCH)  # its workers leave, it stays to be asked back
            asked = time.monotonic()

            async def have_left():
                return not leaving & daemon.workers(old)
            await eventually(have_left, "the old workers end", LEAVE_SECONDS)
            print(f"old workers gone after {time.monotonic() - asked:.2f} s")
            os.kill(old.pid, signal.SIGQUIT)

            cuts = 0
            for number, client in enumerate(clients):
                thread, events, cut = await client
                cuts += cut
                ids = [int(event.id) for event in events]
                assert ids == sorted(set(ids)), "each event once, in order"
                steps = [name for event in events if event.name == "updates"
                         for name in event.data]
                assert steps == [f"step{n}" for n in range(1, STEPS + 1)]
                messages = await api.thread_messages(thread)
                assert len(messages) == STEPS + 1 and text_of(messages[0]) == f"client {number}"
            print(f"{STREAMS} streams, cut {cuts} times")
            assert cuts > 0, "no stream was open when the workers left"

            async def is_gone():
                return not old.is_alive()
            await eventually(is_gone, "the old master ends", LEAVE_SECONDS)
    run(body())
