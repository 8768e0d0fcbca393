"""Checks the load generator against servers that count for themselves.

usage: test_load.py PATH_OF_heddle-load   (nginx must be installed; a few seconds)
"""
import asyncio
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from stack import Nginx, Stack  # noqa: E402

LOAD = None
SERVER = """
    log_format all '$status $request_uri $content_length';
    server {
        listen 127.0.0.1:{port};
        access_log {folder}/access.log all;
        location = /stub { access_log off; stub_status; }
        location /ok { return 200 '{"ok":true}'; }
        location /short { keepalive_requests 3; return 200 '{"ok":true}'; }
        location /missing { return 404; }
        location /empty { return 204; }
    }
"""
DELAY_SECONDS = 0.05


def load(url, *options):
    done = subprocess.run([LOAD, "--url", url, "--json", "-", *map(str, options)],
                          capture_output=True, text=True, timeout=30)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


class AgainstNginx(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.nginx = Nginx(cls.enterClassContext(Stack()), "nginx", 2, SERVER)

    def logged(self, path, count):
        """The log's lines; nginx writes one when it is done with an answer that has been read."""
        until = time.monotonic() + 5
        while True:
            lines = (self.nginx.folder / "access.log").read_text().splitlines()
            found = [line for line in lines if line.split()[1].startswith(path)]
            if len(found) >= count or time.monotonic() > until:
                return found

    def requests_seen(self):
        _, result, _ = load(self.nginx.url("/stub"), "--requests", 1)
        self.assertEqual(result["requests"], 1)
        text = subprocess.run(["/usr/bin/python3", "-c", (
            "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"),
            self.nginx.url("/stub")], capture_output=True, text=True, check=True).stdout
        return int(re.search(r"^ \d+ \d+ (\d+)", text, re.M)[1])

    def test_counts_what_nginx_counts(self):
        before = self.requests_seen()
        started = time.monotonic()
        status, result, errors = load(self.nginx.url("/ok?timed"), "--connections", 16,
                                      "--warmup", 0.2, "--duration", 1, "--expect", '"ok":true')
        self.assertEqual((status, errors), (0, ""))
        seen = self.requests_seen() - before - 2  # the two that asked
        self.assertEqual(result["sent_all"], seen)
        self.assertEqual(result["answered_all"], seen)
        self.assertEqual(len(self.logged("/ok?timed", seen)), seen)
        self.assertEqual(result["statuses"], {"200": seen})
        self.assertEqual(result["body_bytes"], 11 * seen)
        self.assertEqual(result["connects"], 16)
        self.assertGreaterEqual(result["seconds"], 0.99)
        self.assertLess(result["seconds"] + 0.2, time.monotonic() - started)
        self.assertAlmostEqual(result["rps"], result["requests"] / result["seconds"],
                               delta=0.001 * result["rps"])
        self.assertLess(result["requests"], seen)  # the warm-up is not in the figures
        self.assertGreater(result["requests"], 0)

    def test_measures_the_number_asked_for(self):
        status, result, _ = load(self.nginx.url("/ok?counted"), "--connections", 7,
                                 "--warmup-requests", 20, "--requests", 1000)
        self.assertEqual(status, 0)
        self.assertEqual(result["requests"], 1000)
        self.assertEqual(len(self.logged("/ok?counted", result["sent_all"])), result["sent_all"])
        self.assertGreaterEqual(result["sent_all"], 1020)
        self.assertLess(result["sent_all"], 1020 + 7)

    def test_fills_in_a_new_uuid_and_a_count_each_time(self):
        status, result, _ = load(self.nginx.url("/ok/{uuid}/{n}"), "--requests", 50, "--body",
                                 '{"id": "{uuid}", "n": {n}}', "--connections", 4)
        self.assertEqual(status, 0)
        ids, numbers = set(), set()
        for line in self.logged("/ok/", 50):
            _, path, length = line.split()
            _, _, text, count = path.split("/")
            self.assertEqual(uuid.UUID(text).version, 4)
            ids.add(text)
            numbers.add(int(count))
            self.assertEqual(int(length), len(f'{{"id": "{text}", "n": {count}}}'))
        self.assertEqual(len(ids), 50)
        self.assertEqual(numbers, set(range(50)))

    def test_sequence_writes_every_latency(self):
        with tempfile.NamedTemporaryFile("r") as file:
            status, result, _ = load(self.nginx.url("/ok"), "--sequence", "--requests", 40,
                                     "--latencies", file.name)
            latencies = [int(line) for line in file]
        self.assertEqual(status, 0)
        self.assertEqual(len(latencies), 40)
        self.assertEqual(result["connects"], 1)
        self.assertAlmostEqual(max(latencies) / 1000, result["latency_us"]["max"], delta=0.01)
        median = sorted(latencies)[19] / 1000
        self.assertAlmostEqual(result["latency_us"]["p50"], median, delta=0.005 * median)

    def test_goes_on_when_the_server_ends_connections(self):
        status, result, _ = load(self.nginx.url("/short"), "--requests", 30)
        self.assertEqual(status, 0)
        self.assertEqual(result["requests"], 30)
        self.assertEqual(result["connects"], 10)

    def test_a_wrong_status_fails_the_run(self):
        status, result, errors = load(self.nginx.url("/missing"), "--requests", 5)
        self.assertEqual(status, 1)
        self.assertIn("status 404", errors)
        self.assertEqual(result["requests"], 0)
        self.assertGreater(result["errors"]["status"]["count"], 0)

    def test_a_body_without_the_text_fails_the_run(self):
        status, result, _ = load(self.nginx.url("/ok"), "--requests", 5, "--expect", "false")
        self.assertEqual(status, 1)
        self.assertIn('{"ok":true}', result["errors"]["body"]["first"])

    def test_answers_without_a_body(self):
        status, result, _ = load(self.nginx.url("/empty"), "--requests", 5, "--status", 204)
        self.assertEqual((status, result["requests"], result["body_bytes"]), (0, 5, 0))
        status, result, _ = load(self.nginx.url("/ok"), "--requests", 5, "--method", "HEAD")
        self.assertEqual((status, result["requests"], result["body_bytes"]), (0, 5, 0))

    def test_nothing_listens(self):
        status, result, errors = load("http://127.0.0.1:1/", "--requests", 5)
        self.assertEqual(status, 1)
        self.assertIn("connect", errors)

    def test_wrong_options_are_refused(self):
        for options in (["--requests", "x"], [], ["--requests", 1, "--duration", 1],
                        ["--requests", 1, "--connections", 0], ["--nonsense", 1]):
            self.assertEqual(load(self.nginx.url("/ok"), *options)[0], 2, options)
        self.assertEqual(load("http://192.0.2.1/", "--requests", 1)[0], 2)


class OddServer:
    """Answers by path in ways nginx does not; runs in a thread of its own until it is left."""

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, kind, value, trace):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if not await self._answer(head.split()[1].decode(), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def _answer(self, path, writer):
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        answers = {
            "/chunked": chunked + b"5;x=y\r\nhello\r\n7\r\n, world\r\n0\r\nEtag: x\r\n\r\n",
            "/interim": b"HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nok",
            "/until-close": b"HTTP/1.1 200 OK\r\n\r\nall of it",
            "/short": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all of it",
            "/long": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nmore",
            "/bad-chunk": chunked + b"zz\r\n",
            "/slow": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        }
        if path == "/silent":
            return True
        if path == "/slow":
            await asyncio.sleep(DELAY_SECONDS)
        if path == "/chunked":  # one byte at a time: every state must survive a cut
            for byte in answers[path]:
                writer.write(bytes([byte]))
                await writer.drain()
        else:
            writer.write(answers[path])
            await writer.drain()
        return path not in ("/until-close", "/short")


class AgainstAnOddServer(unittest.TestCase):
    def run_load(self, path, *options):
        with OddServer() as server:
            return load(f"http://127.0.0.1:{server.port}{path}", *options)

    def test_chunked(self):
        status, result, _ = self.run_load("/chunked", "--requests", 3, "--expect", "hello, world")
        self.assertEqual((status, result["requests"], result["body_bytes"]), (0, 3, 36))

    def test_interim_responses_and_bodies_until_the_end(self):
        status, result, _ = self.run_load("/interim", "--requests", 3, "--expect", "ok")
        self.assertEqual((status, result["requests"], result["connects"]), (0, 3, 1))
        status, result, _ = self.run_load("/until-close", "--requests", 3, "--expect", "of it")
        self.assertEqual((status, result["requests"], result["connects"]), (0, 3, 3))

    def test_answers_cut_short_too_long_or_garbled_are_errors(self):
        for path, kind in (("/short", "connection"), ("/long", "protocol"),
                           ("/bad-chunk", "protocol")):
            status, result, _ = self.run_load(path, "--requests", 1)
            self.assertEqual(status, 1, path)
            self.assertIn(kind, result["errors"], path)

    def test_an_answer_that_never_comes_is_a_timeout(self):
        status, result, _ = self.run_load("/silent", "--duration", 0.3, "--timeout", 0.2)
        self.assertEqual(status, 1)
        self.assertIn("timeout", result["errors"])

    def test_latency_is_what_the_client_waits(self):
        status, result, _ = self.run_load("/slow", "--requests", 20, "--connections", 2)
        self.assertEqual(status, 0)
        self.assertGreaterEqual(result["latency_us"]["min"], DELAY_SECONDS * 1e6 * 0.98)
        # Two clients wait all the time; ten of the twenty waits are no shorter than the median.
        self.assertLess(result["latency_us"]["p50"], result["seconds"] * 1e6 * 2 / 10 * 1.01)
        self.assertLess(result["rps"], 2 / DELAY_SECONDS * 1.03)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    LOAD = sys.argv.pop(1)
    unittest.main()
