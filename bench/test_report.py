"""Checks that the figures of a report follow from what was measured."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import report  # noqa: E402

WRK = """Running 3s test @ http://127.0.0.1:1/ok
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   655.32us  198.00us   5.24ms   81.10%
    Req/Sec    98.15k     3.02k  104.77k    66.67%
  Latency Distribution
     50%  644.00us
     75%    0.75ms
     90%  812.00us
     99%    1.29ms
  293212 requests in 3.00s, 47.53MB read
Requests/sec:  97714.21
Transfer/sec:     15.84MB
"""


class Wrk(unittest.TestCase):
    def test_figures_are_read_with_their_units(self):
        self.assertEqual(report.parse_wrk(WRK), {
            "rps": 97714.21, "requests": 293212,
            "p50_us": 644.0, "p90_us": 812.0, "p99_us": 1290.0})

    def test_wrong_answers_are_not_a_result(self):
        for line in ("  Non-2xx or 3xx responses: 7",
                     "  Socket errors: connect 0, read 1, write 0, timeout 0"):
            with self.assertRaises(report.WrkError):
                report.parse_wrk(WRK + line + "\n")
        with self.assertRaises(report.WrkError):
            report.parse_wrk("unable to connect to 127.0.0.1:1 Connection refused")


class Figures(unittest.TestCase):
    def test_median_and_spread_of_the_rounds(self):
        rounds = [{"rps": 90.0, "p50_us": 3.0}, {"rps": 100.0, "p50_us": 1.0},
                  {"rps": 120.0, "p50_us": 2.0}]
        self.assertEqual(report.median_of(rounds),
                         {"rps": 100.0, "p50_us": 2.0, "rps_spread": 0.3})

    def test_ratios_are_ours_over_the_peers(self):
        cases = [{"target": t, "connections": c, "rps": rps, "p50_us": p50}
                 for t, c, rps, p50 in (("heddle_pass", 1, 50.0, 3.0), ("proxy_pass", 1, 100.0, 2.0),
                                        ("heddle_pass", 64, 240.0, 4.0),
                                        ("proxy_pass", 64, 200.0, 5.0))]
        self.assertEqual(report.edge_ratios(cases),
                         {"rps_64": 1.2, "p50_64": 0.8, "rps_1": 0.5, "p50_1": 1.5})

    def test_growth_compares_the_last_ten_turns_with_the_first_ten(self):
        self.assertEqual(report.growth([1.0] * 10 + [7.0] * 180 + [3.0] * 10), 3.0)
        # one checkpoint or one slow turn among ten changes nothing
        self.assertEqual(report.growth([900.0] + [2.0] * 198 + [900.0]), 1.0)

    def test_a_meter_that_stands_still_is_an_error(self):
        with self.assertRaises(ValueError):
            report.growth([0] * 200)

    def test_targets_are_said_to_be_met_or_missed(self):
        lines = list(report.ratio_lines({"a": 1.0, "b": 2.0, "c": 3.0},
                                        {"a": (">=", 1.0), "b": ("<=", 1.6)}))
        self.assertTrue(lines[0].endswith("met"))
        self.assertTrue(lines[1].endswith("MISSED"))
        self.assertNotIn("target", lines[2])

    def test_a_table_lines_up(self):
        text = report.table(["name", "n"], [["a", 1], ["long name", 12345]])
        self.assertEqual(text.splitlines()[2:], ["a               1", "long name  12,345"])


if __name__ == "__main__":
    unittest.main()
