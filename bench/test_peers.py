"""Checks what `bench turn --peers` makes of its peers, without them."""
import pathlib
import subprocess
import sys
import time
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peers  # noqa: E402
import stack  # noqa: E402

CASES = [
    {"kind": "new", "store": "memory", "agent": "chain5", "in_flight": 64, "rps": 1.0},
    {"kind": "new", "store": "postgres", "agent": "chain5", "in_flight": 1, "rps": 1.0},
    {"kind": "new", "store": "postgres", "agent": "chain5", "in_flight": 64, "rps": 3000.0},
    {"kind": "new", "store": "postgres", "agent": "echo", "in_flight": 64, "rps": 8000.0},
    {"kind": "long", "store": "postgres", "agent": "chain5", "answer": "updates", "last_us": 1.0},
    {"kind": "long", "store": "postgres", "agent": "chain5", "answer": "wait", "last_us": 2000.0,
     "last_bytes": 5000.0},
]
THEIRS = [
    {"kind": "peer", "store": "postgres", "agent": "chain5", "in_flight": 64, "rps": 150.0,
     "peer": peers.SAVER},
    *({"kind": "peer", "store": "(memory)", "agent": agent, "in_flight": connections, "rps": rps,
       "peer": peers.SERVER}
      for agent, connections, rps in (("echo", 1, 2.0), ("echo", 64, 80.0), ("chain5", 1, 2.0),
                                      ("chain5", 64, 60.0))),
    {"kind": "peer_long", "store": "postgres", "agent": "chain5", "peer": peers.SAVER,
     "last_us": 90000.0, "last_bytes": 400000.0},
]


class Ratios(unittest.TestCase):
    def test_they_compare_like_with_like_on_postgres(self):
        self.assertEqual(peers.ratios_of(CASES + THEIRS), {
            "peers_turns_64": 20.0, "peers_wal_200": 80.0, "peers_latency_200": 45.0,
            "peers_server_echo_64": 100.0, "peers_server_chain_64": 50.0})

    def test_without_peers_there_are_none(self):
        self.assertEqual(peers.ratios_of(CASES), {})

    def test_settings_without_a_counterpart_are_refused(self):
        settings = types.SimpleNamespace(stores=["postgres"], agents=["echo", "chain5"],
                                         in_flight=[1, 64])
        self.assertIsNone(peers.check_settings(settings))
        for name, value in (("stores", ["memory"]), ("agents", ["echo"]), ("in_flight", [64])):
            changed = types.SimpleNamespace(**{**vars(settings), name: value})
            self.assertIn("--peers needs", peers.check_settings(changed))


class Processes(unittest.TestCase):
    def test_the_descendants_of_a_process_are_found_and_ended(self):
        parent = subprocess.Popen(["sh", "-c", "sleep 50 & sh -c 'sleep 50; :' & wait"])
        try:
            deadline = time.monotonic() + 10
            while len(peers.family(parent.pid)) < 4 and time.monotonic() < deadline:
                pass
            pids = peers.family(parent.pid)
            self.assertEqual(len(pids), 4)
        finally:
            parent.terminate()
            parent.wait()
        for pid in reversed(pids):
            peers.end(pid)
        self.assertFalse(any(map(peers.runs, pids)))

    def saver(self, script):
        """A Saver whose `node` is that shell script."""
        saver = peers.Saver.__new__(peers.Saver)
        saver._settings = types.SimpleNamespace(peers=types.SimpleNamespace(node="/bin/sh"))
        saver._postgres = types.SimpleNamespace(folder="none")
        saver._message = "?"
        here = stack.Stack()
        self.addCleanup(here.__exit__, None, None, None)
        saver._folder = here.folder
        (saver._folder / "saver.mjs").write_text(script)
        return saver

    def test_a_wrong_answer_of_the_saver_fails_the_benchmark(self):
        wrong = self.saver("echo 'wrong answer: 5 messages' >&2; exit 1")
        with self.assertRaisesRegex(stack.BenchError, "wrong answer: 5 messages"):
            wrong._run([{"mode": "new"}], 10)

    def test_a_saver_that_does_not_end_is_ended(self):
        with self.assertRaisesRegex(stack.BenchError, "not within 0.1 s"):
            self.saver("exec sleep 50")._run([{"mode": "new"}] * 2, 0.1)


if __name__ == "__main__":
    unittest.main()
