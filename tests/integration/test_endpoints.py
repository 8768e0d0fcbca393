"""What nginx makes of the endpoints in heddle_pool: of those it cannot use, and of strangers there."""
import contextlib
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from harness import Cluster
from local import nginx
from local.processes import tool, wait_until

CONNECT_TIMEOUT = "heddle_connect_timeout 300ms;"


class Stranger:
    """Listens on 127.0.0.1:port, says `greeting` to whoever connects, and reads what it is told."""

    def __init__(self, greeting):
        self._greeting = greeting
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.seen = 0
        self._open = []
        self._os_thread = threading.Thread(target=self._serve)
        self._os_thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.seen += 1
                self._open.append(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(self._greeting)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._os_thread.join()
        for each in [self._listener, *self._open]:
            each.close()


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
STRANGERS = {
    "of another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4,
    "silent": b"",
    "of an older protocol": b"\xff" + bytes(8) + b"\x7f\x01\x00" + bytes(52),
    "with a password": GREETING.replace(b"NULL\0", b"PLAIN"),
    "another dealer": GREETING + b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER",
    "with a frame over the limit":
        GREETING + b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER" + b"\x02" + b"\x7f" * 8,
}


@pytest.fixture(scope="module")
def strangers():
    made = {name: Stranger(greeting) for name, greeting in STRANGERS.items()}
    yield made
    for each in made.values():
        each.close()


@pytest.fixture(scope="module")
def cluster(strangers, tmp_path_factory):
    pools = "".join(nginx.pool(f"stranger_{at}", [f"tcp://127.0.0.1:{each.port}"])
                    for at, each in enumerate(strangers.values()))
    locations = "".join(f"location /{at}/ {{ heddle_pass stranger_{at}; {CONNECT_TIMEOUT} }}\n"
                        for at in range(len(strangers)))
    with Cluster(tmp_path_factory.mktemp("endpoints"), engines=1, workers=1, store="memory",
                 nginx_http=pools, nginx_server=locations) as made:
        yield made
        made.check_clean()


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_is_no_engine_and_harms_nobody(cluster, strangers, name):
    began = time.monotonic()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{cluster.url}/{list(STRANGERS).index(name)}/ok", timeout=20)
    assert refused.value.code == 503 and b'"unavailable"' in refused.value.read()
    assert time.monotonic() - began < 10
    wait_until(lambda: strangers[name].seen >= 2, "it is tried again", 20)
    with urllib.request.urlopen(cluster.url + "/ok", timeout=20) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("endpoint, reason", [
    ("udp://127.0.0.1:1", "needs ENDPOINT"),
    ("tcp://", "needs tcp://host:port"),
    ("tcp://engine", "needs tcp://host:port"),
    ("tcp://:7411", "needs tcp://host:port"),
    ("tcp://[::1:7411", "needs tcp://host:port"),
    ("tcp://a/b:7411", "needs tcp://host:port"),
    ("tcp://[engine]:7411", "needs tcp://host:port"),
    ("tcp://engine:0", "port that is not within"),
    ("tcp://engine:65536", "port that is not within"),
    ("tcp://engine:*", "port that is not within"),
    ("ipc://", "has a path of no bytes"),
    ("ipc:///" + "x" * 108, "has a path of no bytes or of more"),
    ("tcp://engine-1.internal:7411", None),
    ("tcp://10.0.0.7:7411", None),
    ("tcp://[::1]:7411", None),
])
def test_an_endpoint_is_checked_with_the_configuration(cluster, tmp_path, endpoint, reason):
    edge = cluster.edges[0]
    conf = tmp_path / "nginx.conf"
    first = cluster.engines[0].endpoint
    conf.write_text((edge.folder / "nginx.conf").read_text().replace(f'"{first}"', f'"{endpoint}"'))
    done = subprocess.run([tool("nginx", "nginx"), "-p", tmp_path, "-c", conf, "-e",
                           tmp_path / "error.log", "-t"], capture_output=True, text=True,
                          env=cluster.nginx_environment, timeout=60, check=False)
    assert (done.returncode == 0) == (reason is None), done.stderr
    if reason is not None:
        assert '"engine" in heddle_pool' in done.stderr and reason in done.stderr, done.stderr
