"""A Postgres that is reached through TLS: answers that are many records long, values of megabytes."""

import contextlib
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import uuid

from api_client import check_chain, connect, run_of
from clusters import run, slow_cluster
from harness import reserved_port
from local.postgres import ACCOUNT, Postgres

TURNS = 60
MEGABYTES = 3_000_000


@contextlib.contextmanager
def tls_server(port):
    """Yields the URL of its database, which insists on TLS, and the server."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="heddle-test-pg-", dir="/tmp"))
    folder.chmod(0o711)
    key, certificate = folder / "server.key", folder / "server.crt"
    subprocess.run(["openssl", "req", "-new", "-x509", "-days", "1", "-nodes", "-subj",
                    "/CN=localhost", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True, timeout=60)
    for file in (key, certificate):
        file.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(file, pwd.getpwnam(ACCOUNT).pw_uid, -1)
    server = Postgres(folder / "data", folder, folder / "postgres.log", settings=(
        "listen_addresses=127.0.0.1", f"port={port}", "ssl=on", f"ssl_key_file={key}",
        f"ssl_cert_file={certificate}"))
    os.environ["PGPORT"] = str(port)  # of its socket too, by which it is asked
    try:
        server.start()
        server.wait_ready()
        yield f"postgres://heddle@127.0.0.1:{port}/heddle?sslmode=require", server
    finally:
        server.stop()
        del os.environ["PGPORT"]
        shutil.rmtree(folder, ignore_errors=True)


def test_large_answers_come_whole(tmp_path):
    with reserved_port() as port, tls_server(port) as (url, server), \
            slow_cluster(tmp_path, store=url, engines=1, workers=1, latency=0.0) as cluster:
        async def write(api, thread):
            for number in range(TURNS):
                await api.post(f"/threads/{thread}/runs/wait",
                               run_of("echo", f"{number} " + 5000 * "x", if_not_exists="create"))

        async def body():
            async with connect(cluster.urls[0]) as api:
                thread, large = str(uuid.uuid4()), str(uuid.uuid4())
                await write(api, thread)
                await api.post(f"/threads/{large}/runs/wait",
                               run_of("echo", MEGABYTES * "y", if_not_exists="create"))
                assert int(server.ask("SELECT count(*) FROM pg_stat_ssl WHERE ssl")) > 1
                # What was in memory is read back, each thread in one answer of the store.
                cluster.engines[0].stop()
                cluster.engines[0].start()
                cluster.wait_connected()
                messages = await api.thread_messages(thread)
                assert [message["content"].split()[0] for message in messages[::2]] == [
                    str(number) for number in range(TURNS)]
                check_chain((await api.get(f"/threads/{thread}/history?limit=1000")).json)
                messages = await api.thread_messages(large)
                assert [len(message["content"]) for message in messages] == 2 * [MEGABYTES]
                await write(api, large)
                assert len(await api.thread_messages(large)) == 2 + 2 * TURNS
        run(body(), seconds=120)
        cluster.check_clean()
